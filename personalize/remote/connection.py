"""One HTTP connection pool to a server, speaking JSON and the SDK's errors."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, BinaryIO, Self

import httpx2

from personalize.errors import Unreachable
from personalize.remote.failures import failure, stream_failure

Json = dict[str, Any]
CHUNK_BYTES = 2**18


class Connection:
    """Sends requests with the key, and raises what the server refused as the SDK's own errors.

    Args:
        base_url: where the server listens, without ``/v1``.
        api_key: secret of an admin, app or user key.
        timeout_s: longest wait for an answer; a stream may pause that long between two pieces.
        transport: another way to reach the server, for instance in the same process.
    """

    def __init__(
        self, base_url: str, api_key: str, *, timeout_s: float, transport: httpx2.AsyncBaseTransport | None = None
    ):
        headers = {"Authorization": f"Bearer {api_key}"}
        self._http = httpx2.AsyncClient(base_url=base_url, headers=headers, timeout=timeout_s, transport=transport)

    async def send(self, method: str, path: str, body: Json | None = None) -> Json:
        """Return the JSON object that answers a request.

        Raises:
            PersonalizeError: what the server refused, by its class.
            Unreachable: no answer, or none in time.
        """
        try:
            response = await self._http.request(method, path, json=body)
        except httpx2.HTTPError as error:
            raise _unreachable(error) from error
        await _checked(response)
        return _object(response.content)

    async def download(self, path: str, to: BinaryIO) -> None:
        """Write the bytes that answer a GET into a file; raises as ``send`` does."""
        try:
            async with self._http.stream("GET", path) as response:
                await _checked(response)
                async for chunk in response.aiter_bytes():
                    await asyncio.to_thread(to.write, chunk)
        except httpx2.HTTPError as error:
            raise _unreachable(error) from error

    async def upload(self, path: str, file: BinaryIO) -> Json:
        """Return the JSON object that answers a POST of a zip file; raises as ``send`` does."""
        headers = {"Content-Type": "application/zip", "Content-Length": str(os.fstat(file.fileno()).st_size)}
        try:
            response = await self._http.request("POST", path, content=_chunks(file), headers=headers)
        except httpx2.HTTPError as error:
            raise _unreachable(error) from error
        await _checked(response)
        return _object(response.content)

    @asynccontextmanager
    async def open_stream(self, path: str, body: Json) -> AsyncIterator["Stream"]:
        """Send a request whose answer is a stream; leaving the block hangs up."""
        try:
            async with self._http.stream("POST", path, json=body) as response:
                await _checked(response)
                yield Stream(response)
        except httpx2.HTTPError as error:
            raise _unreachable(error) from error

    async def aclose(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()


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


def _unreachable(error: httpx2.HTTPError) -> Unreachable:
    return Unreachable(f"the server does not answer ({type(error).__name__})")


def _object(content: bytes | str) -> Json:
    try:
        value = json.loads(content)
    except ValueError as error:
        raise Unreachable("the answer is not JSON: is this the right address?") from error
    if not isinstance(value, dict):
        raise Unreachable("the answer is no JSON object: is this the right address?")
    return value
