"""Whose conversation a record is."""

from collections.abc import Mapping
from typing import Any

from personalize.errors import InvalidParameter


def person(record: Mapping[str, Any], *fields: str) -> str | None:
    """Return the first of ``fields`` that names somebody; numbers become their digits, None is nobody.

    Raises:
        InvalidParameter: a field holds something that is no name.
    """
    for field in fields:
        value = record.get(field)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
            raise InvalidParameter(field, value, "a non-blank string, a whole number or null")
        return str(value)
    return None
