"""A streamed answer as server-sent events."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from personalize.errors import PersonalizeError
from personalize.types import Reply, ReplyChunk
from server.chat_response import ChunkWriter
from server.edge import log_fault
from server.errors import error_object

KEEP_ALIVE = ": keep-alive\n\n"
DONE = "data: [DONE]\n\n"
_CLOSING: set[asyncio.Task[None]] = set()  # the loop itself holds tasks only weakly


class Pulled:
    """An async iterator that can be waited for with a timeout and without losing the item.

    Semantics: ``ready(s)`` says whether the next item (or the end, or an error) is there; ``take()`` returns it.
    ``aclose()`` cancels a pending pull and closes the source, so that a client who went away leaves nothing behind.

    Args:
        saw: called with every item that arrives.
    """

    def __init__(self, source: AsyncIterator[ReplyChunk], saw: Callable[[], None] = lambda: None):
        self._source = source
        self._saw = saw
        self._pull: asyncio.Task[ReplyChunk | None] | None = None

    async def ready(self, timeout_s: float) -> bool:
        if self._pull is None:
            self._pull = asyncio.create_task(self._next())
        done, _ = await asyncio.wait({self._pull}, timeout=timeout_s)
        return bool(done)

    async def take(self) -> ReplyChunk | None:
        """The next chunk, None at the end."""
        pull, self._pull = self._pull or asyncio.create_task(self._next()), None
        return await pull

    def error(self) -> BaseException | None:
        """The error that the next ``take`` would raise, where one is there already."""
        pull = self._pull
        return pull.exception() if pull is not None and pull.done() and not pull.cancelled() else None

    async def _next(self) -> ReplyChunk | None:
        chunk = await anext(self._source, None)
        self._saw()
        return chunk

    async def aclose(self) -> None:
        """Close the source; a caller who is cancelled, once or again and again, only stops waiting for it."""
        closing = asyncio.create_task(self._close())
        _CLOSING.add(closing)
        closing.add_done_callback(_CLOSING.discard)
        await asyncio.shield(closing)

    async def _close(self) -> None:
        if self._pull is not None:
            self._pull.cancel()
            await asyncio.gather(self._pull, return_exceptions=True)
        close = getattr(self._source, "aclose", None)
        if close is not None:
            await close()


async def events(
    chunks: Pulled, writer: ChunkWriter, *, keep_alive_s: float, done: Callable[[Iterable[Reply]], None]
) -> AsyncIterator[str]:
    """Yield the events of one answer: deltas, ends, usage when asked, ``[DONE]``; tell ``done`` what was said.

    An error after the first byte becomes an error object in the stream, without ``[DONE]``: clients raise it.
    """
    try:
        replies: dict[int, Reply] = {}
        while True:
            while not await chunks.ready(keep_alive_s):
                yield KEEP_ALIVE
            chunk = await chunks.take()
            if chunk is None:
                break
            for value in _written(chunk, writer):
                yield event(value)
            if chunk.reply is not None:
                replies[chunk.index] = chunk.reply
        said = [replies[index] for index in sorted(replies)]
        done(said)
        if writer.include_usage:
            yield event(writer.usage(said))
        yield DONE
    except PersonalizeError as error:
        yield event(error_object(error))
    except Exception as error:
        log_fault(error)
        yield event(error_object(PersonalizeError("fault")))
    finally:
        await chunks.aclose()


def _written(chunk: ReplyChunk, writer: ChunkWriter) -> list[dict[str, Any]]:
    values = []
    if chunk.text or chunk.reply is None:
        values.append(writer.text(chunk.index, chunk.text))
    if chunk.reply is not None:
        values.append(writer.end(chunk.index, chunk.reply))
    return values


def event(value: dict[str, Any]) -> str:
    """Return one event, in ASCII.

    There are clients that end a line at U+2028, U+2029 and U+0085 too, and half a surrogate pair, which an error may
    quote, is nothing that UTF-8 can carry.
    """
    return f"data: {json.dumps(value, separators=(',', ':'))}\n\n"
