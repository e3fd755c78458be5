"""Handing tokens from the device thread to event loops: once per loop and step, for all streams together."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable

from personalize.errors import PersonalizeError
from personalize.types import TokenChunk

Item = TokenChunk | PersonalizeError


class TokenStream:
    """One request's chunks, as its event loop sees them.

    Attributes:
        loop: the loop that reads it.
        ended: the last chunk or the error has been read (used on the loop only).
    """

    def __init__(self, loop: asyncio.AbstractEventLoop):
        self.loop = loop
        self.ended = False
        self._items: asyncio.Queue[Item] = asyncio.Queue()

    def put(self, item: Item) -> None:
        """Add an item; on the loop's thread only."""
        self._items.put_nowait(item)

    async def next(self) -> TokenChunk:
        """Return the next chunk, or raise the error that ended the sequence."""
        item = await self._items.get()
        self.ended = isinstance(item, PersonalizeError) or item.finish_reason is not None
        if isinstance(item, PersonalizeError):
            raise item
        return item


def hand_over(items: Iterable[tuple[TokenStream, Item]]) -> list[TokenStream]:
    """Give items to their streams, one call per event loop; return the streams whose loop is gone."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[TokenStream, Item]]] = defaultdict(list)
    for stream, item in items:
        by_loop[stream.loop].append((stream, item))
    lost: list[TokenStream] = []
    for loop, batch in by_loop.items():
        try:
            loop.call_soon_threadsafe(_put_all, batch)
        except RuntimeError:  # closed: nobody can read these any more
            lost += [stream for stream, _ in batch]
    return lost


def _put_all(batch: list[tuple[TokenStream, Item]]) -> None:
    for stream, item in batch:
        stream.put(item)
