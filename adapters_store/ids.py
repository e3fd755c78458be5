"""Random ids, keyed hashes and the digest of tagged fields."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable

from adapters_store.errors import InvalidValue

HEX32 = re.compile(r"[0-9a-f]{32}")
HEX64 = re.compile(r"[0-9a-f]{64}")


def new_id() -> str:
    """Return 32 random hex digits; every id in a row or a path is one of these, never client text."""
    return secrets.token_hex(16)


def checked_id(name: str, value: str) -> str:
    """Return ``value`` if it has the form of an id.

    Raises:
        InvalidValue: it has not; ids become parts of paths.
    """
    if not isinstance(value, str) or not HEX32.fullmatch(value):
        raise InvalidValue(name, value, "32 lower-case hex digits")
    return value


def tagged(tag: str, fields: Iterable[bytes]) -> bytes:
    """Return the fields behind a tag, each led by its length: two different lists never give the same bytes."""
    parts = [tag.encode(), *fields]
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)


def keyed_hash(key: bytes, tag: str, *fields: bytes) -> str:
    """Return HMAC-SHA256 of the tagged fields, in hex."""
    return hmac.new(key, tagged(tag, fields), hashlib.sha256).hexdigest()


def short_text(name: str, value: str, max_chars: int) -> str:
    """Return ``value`` if it is a text of 1 to ``max_chars`` characters without control characters."""
    if not isinstance(value, str) or not 0 < len(value) <= max_chars or not value.isprintable():
        raise InvalidValue(name, value, f"1 to {max_chars} printable characters")
    return value
