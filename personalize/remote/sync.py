"""``SyncRemotePersonalizer``: the remote client for code without an event loop."""

import asyncio
import functools
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from personalize.errors import Cancelled
from personalize.remote.client import RemotePersonalizer
from personalize.types import ReplyChunk

P = ParamSpec("P")
T = TypeVar("T")


def _blocking(
    method: Callable[Concatenate[RemotePersonalizer, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate["SyncRemotePersonalizer", P], T]:
    @functools.wraps(method)
    def call(self: "SyncRemotePersonalizer", *args: P.args, **kwargs: P.kwargs) -> T:
        return self._run(method(self._remote, *args, **kwargs))

    return call


def _iterating(
    method: Callable[Concatenate[RemotePersonalizer, P], AsyncGenerator[ReplyChunk]],
) -> Callable[Concatenate["SyncRemotePersonalizer", P], Iterator[ReplyChunk]]:
    @functools.wraps(method)
    def call(self: "SyncRemotePersonalizer", *args: P.args, **kwargs: P.kwargs) -> Iterator[ReplyChunk]:
        chunks = method(self._remote, *args, **kwargs)
        try:
            while (chunk := self._run(_next(chunks))) is not None:
                yield chunk
        finally:
            self._run(chunks.aclose())

    return call


async def _next(chunks: AsyncGenerator[ReplyChunk]) -> ReplyChunk | None:
    return await anext(chunks, None)


class SyncRemotePersonalizer:
    """Every method of ``RemotePersonalizer``, blocking; the client runs on a loop thread of its own.

    Takes the arguments of ``RemotePersonalizer``. May be used from several threads; leaving ``stream`` early cuts the
    reply.
    """

    def __init__(self, base_url: str, api_key: str, **options: Any):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="remote-personalizer", daemon=True)
        self._thread.start()
        try:
            self._remote = self._run(_made(base_url, api_key, **options))
        except BaseException:
            self._end()
            raise

    model = _blocking(RemotePersonalizer.model)
    chat = _blocking(RemotePersonalizer.chat)
    complete = _blocking(RemotePersonalizer.complete)
    stream = _iterating(RemotePersonalizer.stream)
    settled = _blocking(RemotePersonalizer.settled)
    outcome = _blocking(RemotePersonalizer.outcome)
    updates = _blocking(RemotePersonalizer.updates)
    update = _blocking(RemotePersonalizer.update)
    explain = _blocking(RemotePersonalizer.explain)
    pause = _blocking(RemotePersonalizer.pause)
    resume = _blocking(RemotePersonalizer.resume)
    consent = _blocking(RemotePersonalizer.consent)
    user = _blocking(RemotePersonalizer.user)
    users = _blocking(RemotePersonalizer.users)
    versions = _blocking(RemotePersonalizer.versions)
    rollback = _blocking(RemotePersonalizer.rollback)
    undo = _blocking(RemotePersonalizer.undo)
    undo_turn = _blocking(RemotePersonalizer.undo_turn)
    reset = _blocking(RemotePersonalizer.reset)
    pin = _blocking(RemotePersonalizer.pin)
    export = _blocking(RemotePersonalizer.export)
    export_version = _blocking(RemotePersonalizer.export_version)
    import_ = _blocking(RemotePersonalizer.import_)
    forget = _blocking(RemotePersonalizer.forget)

    def close(self) -> None:
        """Close the connections and end the thread. May be called twice."""
        if not self._loop.is_closed():
            self._run(self._remote.aclose())
            self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        if self._loop.is_closed():
            work.close()
            raise Cancelled("this client is closed")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _made(base_url: str, api_key: str, **options: Any) -> RemotePersonalizer:
    """Build the client on the loop that will use it."""
    return RemotePersonalizer(base_url, api_key, **options)
