"""Files over HTTP: an upload into a file, and a file that is sent while nobody can find it any more."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

from starlette.requests import Request
from starlette.responses import StreamingResponse

from personalize.errors import StorageUnavailable
from server.errors import BodyTooLarge

CHUNK_BYTES = 2**18


async def receive(request: Request, to: Path, max_bytes: int) -> None:
    """Write the request's body to a new file.

    Raises:
        BodyTooLarge: it is longer than ``max_bytes``; the rest is not read.
        StorageUnavailable: it cannot be written.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared[:20]) > max_bytes:
        raise _too_large(max_bytes)
    try:
        with open(to, "xb") as file:
            num_bytes = 0
            async for chunk in request.stream():
                num_bytes += len(chunk)
                if num_bytes > max_bytes:
                    raise _too_large(max_bytes)
                await asyncio.to_thread(file.write, chunk)
    except OSError as error:
        raise StorageUnavailable(f"an upload cannot be written: {error.strerror}") from error


def send_zip(file: BinaryIO, name: str) -> StreamingResponse:
    """Return an answer that sends an open file, whose name in the file system may be gone, and closes it."""
    num_bytes = file.seek(0, 2)
    file.seek(0)
    headers = {
        "Content-Disposition": f'attachment; filename="{name}"',
        "Content-Length": str(num_bytes),
        "Cache-Control": "no-store",
    }
    return StreamingResponse(_content(file), media_type="application/zip", headers=headers)


async def _content(file: BinaryIO) -> AsyncIterator[bytes]:
    with file:
        while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
            yield chunk


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body is longer than allowed; allowed: {max_bytes} bytes")
