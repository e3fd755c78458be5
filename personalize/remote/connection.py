"""One HTTP connection pool to a server, speaking JSON and the SDK's errors."""

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, BinaryIO, Self

import httpx2

from personalize.errors import Cancelled, InvalidParameter, InvalidRequest, Unreachable
from personalize.remote.failures import failure, stream_failure

Json = dict[str, Any]
CHUNK_BYTES = 2**18
IN_JSON = "what JSON can spell: text, finite numbers, true, false, null, lists and objects"


class Connection:
    """Sends requests with the key, and raises what the server refused as the SDK's own errors.

    Args:
        base_url: where the server listens, without ``/v1``.
        api_key: secret of an admin, app or user key.
        timeout_s: longest wait for an answer; a stream may pause that long between two pieces.
        transport: another way to reach the server, for instance in the same process.

    Raises:
        InvalidRequest: an address or a key that no request could carry.
    """

    def __init__(
        self, base_url: str, api_key: str, *, timeout_s: float, transport: httpx2.AsyncBaseTransport | None = None
    ):
        url, headers = _address(base_url), {"Authorization": f"Bearer {_secret(api_key)}"}
        self._http = httpx2.AsyncClient(base_url=url, headers=headers, timeout=timeout_s, transport=transport)

    async def send(self, method: str, path: str, body: Json | None = None) -> Json:
        """Return the JSON object that answers a request.

        Raises:
            PersonalizeError: what the server refused, by its class.
            InvalidRequest: the request cannot be written down.
            Unreachable: no answer, or none in time.
            Cancelled: the connection is closed, or was closed meanwhile.
        """
        with self._asking():
            response = await self._http.request(method, path, **_json(body))
        await _checked(response)
        return _object(response.content)

    async def download(self, path: str, to: BinaryIO) -> None:
        """Write the bytes that answer a GET into a file; raises as ``send`` does."""
        with self._asking():
            async with self._http.stream("GET", path) as response:
                await _checked(response)
                async for chunk in response.aiter_bytes():
                    await asyncio.to_thread(to.write, chunk)

    async def upload(self, path: str, file: BinaryIO) -> Json:
        """Return the JSON object that answers a POST of a zip file; raises as ``send`` does."""
        headers = {"Content-Type": "application/zip", "Content-Length": str(os.fstat(file.fileno()).st_size)}
        with self._asking():
            response = await self._http.request("POST", path, content=_chunks(file), headers=headers)
        await _checked(response)
        return _object(response.content)

    @asynccontextmanager
    async def open_stream(self, path: str, body: Json) -> AsyncIterator["Stream"]:
        """Send a request whose answer is a stream; leaving the block hangs up."""
        with self._asking():
            async with self._http.stream("POST", path, **_json(body)) as response:
                await _checked(response)
                yield Stream(response)

    async def aclose(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Turn what keeps a request from its answer into the SDK's errors."""
        try:
            if self._http.is_closed:
                raise Cancelled("this client is closed")
            yield
        except httpx2.InvalidURL as error:
            raise InvalidRequest(f"the request's address is not allowed: {error}") from error
        except httpx2.HTTPError as error:
            if self._http.is_closed:
                raise Cancelled("this client is closed") from error
            raise Unreachable(f"the server does not answer ({type(error).__name__})") from error


class Stream:
    """The events of one streamed answer.

    Raises:
        PersonalizeError: what the server said in the middle of the stream.
        Unreachable: the stream ended without its closing ``[DONE]``.
    """

    def __init__(self, response: httpx2.Response):
        self.headers: Mapping[str, str] = response.headers
        self._events = httpx2.EventSource(response)

    async def __aiter__(self) -> AsyncIterator[Json]:
        async for event in self._events:
            if event.data == "[DONE]":
                return
            value = _object(event.data)
            if "error" in value:
                raise stream_failure(value["error"])
            yield value
        raise Unreachable("the stream ended before its end")


async def _checked(response: httpx2.Response) -> None:
    """Raise what the server refused."""
    if response.status_code >= 400:
        raise failure(response.status_code, await response.aread(), response.headers.get("retry-after"))


async def _chunks(file: BinaryIO) -> AsyncIterator[bytes]:
    while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
        yield chunk


def _address(base_url: str) -> httpx2.URL:
    try:
        url = httpx2.URL(base_url)
        whole = url.scheme in ("http", "https") and bool(url.host) and (url.port or 1) < 2**16
    except (TypeError, ValueError, httpx2.InvalidURL):
        whole = False
    if not whole:
        raise InvalidParameter("base_url", base_url, "http:// or https:// with a host, without /v1")
    return url


def _secret(api_key: str) -> str:
    """Return the key without the line end that it has in a file; no error names it."""
    key = api_key.strip() if isinstance(api_key, str) else ""
    if not re.fullmatch("[!-~]+", key):
        allowed = "a secret as it was created: ASCII letters, digits and signs"
        raise InvalidRequest(f"this api_key is not allowed; allowed: {allowed}", param="api_key")
    return key


def _json(body: Json | None) -> dict[str, Any]:
    """Return the options of a request with this body; half a surrogate pair is spelled as JSON escapes it."""
    if body is None:
        return {}
    fields = (f"{json.dumps(name)}:{_spelled(name, value)}" for name, value in body.items())
    content = f"{{{','.join(fields)}}}".encode("utf-8", "backslashreplace")
    return {"content": content, "headers": {"Content-Type": "application/json"}}


def _spelled(param: str, value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidParameter(param, value, IN_JSON) from error


def _object(content: bytes | str) -> Json:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Unreachable("the answer is not JSON: is this the right address?") from error
    if not isinstance(value, dict):
        raise Unreachable("the answer is no JSON object: is this the right address?")
    return value
