"""``SyncRemotePersonalizer``: the remote client for code without an event loop."""

import functools
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from personalize.loops import LoopIterator, LoopThread
from personalize.remote.client import RemotePersonalizer

P = ParamSpec("P")
T = TypeVar("T")


def _blocking(
    method: Callable[Concatenate[RemotePersonalizer, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate["SyncRemotePersonalizer", P], T]:
    @functools.wraps(method)
    def call(self: "SyncRemotePersonalizer", *args: P.args, **kwargs: P.kwargs) -> T:
        return self._thread.run(method, self._remote, *args, **kwargs)

    return call


def _iterating(
    method: Callable[Concatenate[RemotePersonalizer, P], AsyncGenerator[T]],
) -> Callable[Concatenate["SyncRemotePersonalizer", P], LoopIterator[T]]:
    @functools.wraps(method)
    def call(self: "SyncRemotePersonalizer", *args: P.args, **kwargs: P.kwargs) -> LoopIterator[T]:
        return self._thread.iterate(method(self._remote, *args, **kwargs))

    return call


class SyncRemotePersonalizer:
    """Every method of ``RemotePersonalizer``, blocking; the client runs on a loop thread of its own.

    Takes the arguments of ``RemotePersonalizer``. May be used from several threads; leaving ``stream`` early cuts the
    reply.
    """

    def __init__(self, base_url: str, api_key: str, **options: Any):
        self._thread = LoopThread("remote-personalizer", "this client is closed")
        try:
            self._remote = self._thread.run(_made, base_url, api_key, **options)
        except BaseException:
            self._thread.close()
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
        self._thread.close(self._remote.aclose)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


async def _made(base_url: str, api_key: str, **options: Any) -> RemotePersonalizer:
    """Build the client on the loop that will use it."""
    return RemotePersonalizer(base_url, api_key, **options)
