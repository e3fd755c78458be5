"""Request bodies: bounded, strict JSON, from bytes to plain values."""

import json
from typing import Any

from starlette.requests import Request

from personalize.errors import InvalidRequest
from server.errors import BodyTooLarge

MAX_BODY_BYTES = 8 * 2**20
MAX_DEPTH = 32


async def read_object(request: Request) -> dict[str, Any]:
    """Return the body's JSON object.

    Raises:
        BodyTooLarge: more than MAX_BODY_BYTES; the rest is not read.
        InvalidRequest: not UTF-8, not JSON, not an object, or deeper than MAX_DEPTH.
    """
    value = parse_json(await _read(request))
    if not isinstance(value, dict):
        raise InvalidRequest(f"the body is a JSON {_kind(value)}; allowed: an object")
    return value


async def _read(request: Request) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared[:20]) > MAX_BODY_BYTES:
        raise _too_large()
    chunks, num_bytes = [], 0
    async for chunk in request.stream():
        chunks.append(chunk)
        num_bytes += len(chunk)
        if num_bytes > MAX_BODY_BYTES:
            raise _too_large()
    return b"".join(chunks)


def _too_large() -> BodyTooLarge:
    return BodyTooLarge(f"the body is longer than allowed; allowed: {MAX_BODY_BYTES} bytes")


def parse_json(raw: bytes) -> Any:
    """Parse RFC 8259 JSON: no NaN, no infinities, bounded depth. Lone surrogates pass: JSON can spell them."""
    try:
        value = json.loads(raw.decode("utf-8"), parse_constant=_refuse_constant)
    except RecursionError:
        raise InvalidRequest(f"the body is nested deeper than allowed; allowed: {MAX_DEPTH} levels") from None
    except ValueError as error:  # covers UnicodeDecodeError, JSONDecodeError and numbers of absurd length
        raise InvalidRequest(f"the body is not JSON ({type(error).__name__})") from None
    _check_depth(value)
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _check_depth(value: Any) -> None:
    level, depth = [value], 0
    while level := [child for node in level for child in _children(node)]:
        depth += 1
        if depth > MAX_DEPTH:
            raise InvalidRequest(f"the body is nested deeper than allowed; allowed: {MAX_DEPTH} levels")


def _children(node: Any) -> list[Any]:
    if isinstance(node, dict):
        return list(node.values())
    return node if isinstance(node, list) else []


def _kind(value: object) -> str:
    names = {list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")
