"""All that is being said now: requests are admitted, answered, and cut where they have to be."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from personalize.backends import Opened
from personalize.errors import Cancelled
from personalize.service.admission import Admission, Admitted
from personalize.service.exchange import Exchange
from personalize.service.ledger import Ledger
from personalize.types import ChatRequest, Reply, ReplyChunk

T = TypeVar("T")
NUM_ADMITTING = 4
MAX_ADMISSIONS = 100
PAUSE_S = 0.05


class Chats:
    """Answers chat requests, many at a time; ``len`` counts those that are being answered.

    Attributes:
        closed: nothing more is accepted.

    Args:
        forgotten: ids of users of whom nothing may reach the engine any more; grows while it is in use.
        queued: called when a follow-up has been queued.
    """

    def __init__(
        self,
        opened: Opened,
        admission: Admission,
        ledger: Ledger,
        forgotten: Collection[str],
        queued: Callable[[], None],
    ):
        self.closed = False
        self._opened = opened
        self._admission = admission
        self._ledger = ledger
        self._forgotten = forgotten
        self._queued = queued
        self._threads = ThreadPoolExecutor(NUM_ADMITTING, "admission")
        self._background: set[asyncio.Task[Any]] = set()
        self._running: set[Exchange] = set()

    def __len__(self) -> int:
        return len(self._running)

    @property
    def idle(self) -> bool:
        """Nothing is being answered, and nothing that was answered is still to be recorded."""
        return not self._running and not self._background

    def users(self) -> set[str]:
        """Return the ids of the users who are being answered."""
        return {one.user_id for one in self._running if one.user_id is not None}

    # --- answering ---------------------------------------------------------------------------------------------------

    async def complete(self, request: ChatRequest) -> tuple[Reply, ...]:
        """Return all replies, in the order of their choices."""
        replies: dict[int, Reply] = {}
        async with contextlib.aclosing(self.stream(request)) as chunks:
            async for chunk in chunks:
                if chunk.reply is not None:
                    replies[chunk.index] = chunk.reply
        return tuple(replies[index] for index in sorted(replies))

    async def stream(self, request: ChatRequest) -> AsyncGenerator[ReplyChunk, None]:
        """Yield the start, the pieces of text and each choice's whole reply; see ``Personalizer.stream``."""
        exchange = Exchange(
            await self._admit(request),
            self._opened.inference,
            self._opened.renderer,
            self._ledger,
            self._spawn,
            self._queued,
        )
        self._running.add(exchange)
        try:
            async with contextlib.aclosing(exchange.run()) as chunks:
                async for chunk in chunks:
                    yield chunk
        finally:
            self._running.discard(exchange)

    async def _admit(self, request: ChatRequest) -> Admitted:
        """Admit the request; one of a user who is being forgotten waits for the end of that.

        Raises:
            Cancelled: the service is closed, or the erasure takes too long.
        """
        loop = asyncio.get_running_loop()
        for _ in range(MAX_ADMISSIONS):
            self.check_open()
            admitted = await loop.run_in_executor(self._threads, self._admission.admit, request)
            self.check_open()
            if admitted.user is None or admitted.user.user_id not in self._forgotten:
                return admitted
            await asyncio.sleep(PAUSE_S)  # whoever comes back after the erasure is a new user
        raise Cancelled("the user is being forgotten")

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start work that outlives the request; ``aclose`` waits for it."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    # --- ending ------------------------------------------------------------------------------------------------------

    def check_open(self) -> None:
        """Refuse what comes too late.

        Raises:
            Cancelled: the service is closed.
        """
        if self.closed:
            raise Cancelled("the service is closed")

    async def cut(self, why: str, user_id: str | None = None) -> None:
        """Cut the replies to one user, or all of them; what was delivered is recorded."""
        cut = [one for one in self._running if user_id in (None, one.user_id)]
        await asyncio.gather(*(exchange.stop(Cancelled(why)) for exchange in cut))

    async def aclose(self) -> None:
        """Return once everything that is owed has been written down; nothing must be running any more."""
        while self._background:
            await asyncio.gather(*self._background, return_exceptions=True)
        await asyncio.to_thread(self._threads.shutdown)
