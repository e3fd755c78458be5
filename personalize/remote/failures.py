"""From HTTP errors back to the classes of ``personalize.errors``."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from personalize import errors
from personalize.errors import PersonalizeError

BY_STATUS: Mapping[int, type[PersonalizeError]] = {
    400: errors.InvalidRequest,
    401: errors.Unauthenticated,
    403: errors.PermissionDenied,
    404: errors.NotFound,
    405: errors.InvalidRequest,
    409: errors.Conflict,
    410: errors.Gone,
    413: errors.InvalidRequest,
    414: errors.InvalidRequest,
    429: errors.Overloaded,
    502: errors.Unreachable,
    503: errors.Overloaded,
    504: errors.Unreachable,
}
"""What a status means where the code is not one of ours (a proxy's answer, a newer server's)."""


def _subclasses(cls: type[PersonalizeError]) -> Iterator[type[PersonalizeError]]:
    yield cls
    for child in cls.__subclasses__():
        yield from _subclasses(child)


BY_CODE = {cls.code: cls for cls in _subclasses(PersonalizeError) if cls.__module__ == errors.__name__}


def failure(status: int, body: bytes, retry_after: str | None = None) -> PersonalizeError:
    """Return the error that an HTTP answer stands for."""
    fields = _fields(body)
    code = fields.get("code")
    cls = BY_CODE.get(code) if isinstance(code, str) else None
    error = _made(cls or BY_STATUS.get(status, PersonalizeError), fields, f"HTTP {status}")
    if isinstance(error, errors.Overloaded):
        error.retry_after_s = float(retry_after) if retry_after and retry_after.isdecimal() else 1.0
    return error


def stream_failure(error: Mapping[str, Any]) -> PersonalizeError:
    """Return the error that an error object in the middle of a stream stands for."""
    return failure(500, json.dumps({"error": error}).encode())


def _fields(body: bytes) -> Mapping[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    error = value.get("error") if isinstance(value, dict) else None
    return error if isinstance(error, dict) else {}


def _made(cls: type[PersonalizeError], fields: Mapping[str, Any], fallback: str) -> PersonalizeError:
    """Build an error without its own constructor, which may want values that did not travel."""
    error = cls.__new__(cls)
    message = str(fields.get("message") or fallback)
    PersonalizeError.__init__(error, message, param=fields.get("param"))
    if isinstance(fields.get("code"), str):
        error.code = fields["code"]
    return error
