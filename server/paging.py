"""Query parameters of a listing."""

from collections.abc import Mapping

from personalize.errors import InvalidParameter

MAX_LIMIT = 1000


def page(query: Mapping[str, str], default: int = 100) -> tuple[int, str | None]:
    """Return (limit, after).

    Raises:
        InvalidParameter: ``limit`` is no number from 1 to MAX_LIMIT.
    """
    raw = query.get("limit", str(default))
    if not raw.isascii() or not raw.isdigit() or len(raw) > 6 or not 1 <= int(raw) <= MAX_LIMIT:
        raise InvalidParameter("limit", raw, f"a whole number from 1 to {MAX_LIMIT}")
    return int(raw), query.get("after")
