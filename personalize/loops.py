"""What both blocking twins stand on: an event loop with a thread of its own, and iterators over its generators."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from concurrent.futures import CancelledError, Future
from typing import Any, ParamSpec, TypeVar

from personalize.errors import Cancelled

P = ParamSpec("P")
T = TypeVar("T")


class LoopThread:
    """An event loop that runs in a daemon thread until it is closed; may be used from several threads.

    Args:
        name: of the thread.
        closed: what a call is told that comes too late, or that waits while the loop is closed.
    """

    def __init__(self, name: str, closed: str):
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._loop = self._runner.get_loop()
        self._closed = closed
        self._open = True
        self._lock = threading.Lock()  # what is begun under it is begun before the loop stops, or is refused
        self._half_read: set[_Steps] = set()
        self._dropped: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._live, name=name, daemon=True)
        self._thread.start()

    def run(self, work: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what ``work`` with these arguments comes to; an interrupted caller cancels it.

        Raises:
            Cancelled: the loop is closed, or was closed meanwhile.
        """
        future = self._begun(lambda: work(*args, **kwargs))
        try:
            return future.result()
        except CancelledError:
            raise Cancelled(self._closed) from None
        except BaseException:
            future.cancel()
            raise

    def iterate(self, items: AsyncGenerator[T]) -> "LoopIterator[T]":
        """Return what ``items`` yields as a plain iterator."""
        return LoopIterator(self, _Steps(items, self._half_read))

    def drop(self, closing: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begin ``closing`` on the loop and do not wait; safe in a finaliser, whose thread may be the loop's own."""
        with contextlib.suppress(RuntimeError):  # a closed loop has closed its generators
            self._loop.call_soon_threadsafe(self._drop, closing)

    def close(self, last: Callable[[], Coroutine[Any, Any, None]] | None = None) -> None:
        """Refuse new work, run ``last``, cancel what still waits, and end the thread. May be called twice."""
        with self._lock:
            if not self._open:
                return
            self._open = False
        try:
            if last is not None:
                asyncio.run_coroutine_threadsafe(last(), self._loop).result()
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    def _live(self) -> None:
        with self._runner:
            self._loop.run_forever()
            self._runner.run(self._end())

    async def _end(self) -> None:
        """Cancel what waits, then close what is half read; left to the loop, generators in generators collide."""
        waiting = asyncio.all_tasks() - {asyncio.current_task()}
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await asyncio.gather(*(steps.close() for steps in self._half_read), return_exceptions=True)

    def _begun(self, work: Callable[[], Coroutine[Any, Any, T]]) -> Future[T]:
        with self._lock:
            if not self._open:
                raise Cancelled(self._closed)
            return asyncio.run_coroutine_threadsafe(self._in_turn(work), self._loop)

    async def _in_turn(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run ``work`` after what was dropped before it: a follow-up to a reply left early finds that recorded."""
        if self._dropped:
            await asyncio.wait(self._dropped)
        return await work()

    def _drop(self, closing: Callable[[], Coroutine[Any, Any, None]]) -> None:
        task = self._loop.create_task(closing())
        self._dropped.add(task)
        task.add_done_callback(self._dropped.discard)


class LoopIterator(Iterator[T]):
    """What an asynchronous generator on a loop's thread yields, one item at a time.

    Its end and ``close`` return when the generator has let go of everything. One that is merely dropped waits for
    nobody: the garbage collector finalises it on any thread, even the loop's own.
    """

    def __init__(self, thread: LoopThread, steps: "_Steps"):
        self._thread = thread
        self._steps = steps
        self._ended = False

    def __next__(self) -> T:
        if self._ended:
            raise StopIteration
        try:
            return self._thread.run(self._steps.next)
        except StopAsyncIteration:
            self._ended = True
            raise StopIteration from None

    def close(self) -> None:
        """Leave early. Does nothing after the end, or once the thread is closed."""
        if not self._ended:
            self._ended = True
            with contextlib.suppress(Cancelled):
                self._thread.run(self._steps.close)

    def __del__(self) -> None:
        if not self._ended:
            self._thread.drop(self._steps.close)


class _Steps:
    """The steps of one generator, one after the other: a step that was interrupted may still be on its way out.

    Args:
        half_read: where it stands between its first step and its last.
    """

    def __init__(self, items: AsyncGenerator[Any], half_read: "set[_Steps]"):
        self._items = items
        self._half_read = half_read
        self._turn = asyncio.Lock()

    async def next(self) -> Any:
        async with self._turn:
            self._half_read.add(self)
            try:
                return await anext(self._items)
            except BaseException:
                self._half_read.discard(self)
                raise

    async def close(self) -> None:
        async with self._turn:
            self._half_read.discard(self)
            await self._items.aclose()
