"""The blocking twin: the same methods, run on an event loop that has a thread of its own."""

import asyncio
import contextlib
import functools
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

from personalize.config import Learning, Settings
from personalize.errors import Cancelled
from personalize.service.personalizer import Personalizer

P = ParamSpec("P")
T = TypeVar("T")


class LoopThread:
    """An event loop that runs in a daemon thread until it is closed."""

    def __init__(self):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="personalize", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Return the result of ``work``; an interrupted caller cancels it."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except CancelledError:
            raise Cancelled("the service is closed") from None
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()


def _blocking(
    method: Callable[Concatenate[Personalizer, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate["SyncPersonalizer", P], T]:
    @functools.wraps(method)
    def call(self: "SyncPersonalizer", *args: P.args, **kwargs: P.kwargs) -> T:
        self._check_open()
        return self._thread.run(method(self._app, *args, **kwargs))

    return call


def _iterating(
    method: Callable[Concatenate[Personalizer, P], AsyncIterator[T]],
) -> Callable[Concatenate["SyncPersonalizer", P], Iterator[T]]:
    @functools.wraps(method)
    def call(self: "SyncPersonalizer", *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        self._check_open()
        items = method(self._app, *args, **kwargs)
        try:
            while (item := self._thread.run(_next(items))) is not _END:
                yield item  # type: ignore[misc]
        finally:
            self._thread.run(_close(items))

    return call


_END = object()


async def _next(items: AsyncIterator[T]) -> T | object:
    return await anext(items, _END)


async def _close(items: Any) -> None:
    await items.aclose()


async def _enter(block: contextlib.AbstractAsyncContextManager[T]) -> T:
    return await block.__aenter__()


async def _leave(block: contextlib.AbstractAsyncContextManager[Any]) -> None:
    await block.__aexit__(None, None, None)


class SyncPersonalizer:
    """``Personalizer`` for code without an event loop; may be used from several threads.

    ``with SyncPersonalizer.open(...) as app``, or call ``close`` at the end. Every method is the one of the same name
    there; ``stream`` gives a plain iterator, and leaving it early cuts the reply.
    """

    def __init__(self, app: Personalizer, thread: LoopThread):
        self._app = app
        self._thread = thread
        self._open = True

    @classmethod
    def open(
        cls,
        model: str = "pocket",
        *,
        home: str | Path = "data",
        device: Literal["cpu", "cuda", "auto"] = "auto",
        learning: Learning = "on",
        recipe: Mapping[str, Any] | None = None,
        settings: Settings | None = None,
    ) -> "SyncPersonalizer":
        """Open a model and a store; see ``Personalizer.open``."""
        thread = LoopThread()

        async def start() -> Personalizer:
            return await Personalizer.open(
                model, home=home, device=device, learning=learning, recipe=recipe, settings=settings
            )

        try:
            return cls(thread.run(start()), thread)
        except BaseException:
            thread.close()
            raise

    def close(self) -> None:
        """Close the service and its thread. May be called twice."""
        if self._open:
            self._open = False
            try:
                self._thread.run(self._app.aclose())
            finally:
                self._thread.close()

    def __enter__(self) -> "SyncPersonalizer":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if not self._open:
            raise Cancelled("the service is closed")

    chat = _blocking(Personalizer.chat)
    complete = _blocking(Personalizer.complete)
    stream = _iterating(Personalizer.stream)
    settled = _blocking(Personalizer.settled)
    outcome = _blocking(Personalizer.outcome)
    outcome_owner = _blocking(Personalizer.outcome_owner)
    fingerprint = _blocking(Personalizer.fingerprint)
    explain = _blocking(Personalizer.explain)
    learn_from = _blocking(Personalizer.learn_from)
    rebase = _blocking(Personalizer.rebase)
    undo_turn = _blocking(Personalizer.undo_turn)
    build_population = _blocking(Personalizer.build_population)
    remove_population = _blocking(Personalizer.remove_population)
    population = _blocking(Personalizer.population)
    population_uses = _blocking(Personalizer.population_uses)
    updates = _blocking(Personalizer.updates)
    update = _blocking(Personalizer.update)
    update_owner = _blocking(Personalizer.update_owner)
    pause = _blocking(Personalizer.pause)
    resume = _blocking(Personalizer.resume)
    consent = _blocking(Personalizer.consent)
    user = _blocking(Personalizer.user)
    users = _blocking(Personalizer.users)
    versions = _blocking(Personalizer.versions)
    rollback = _blocking(Personalizer.rollback)
    undo = _blocking(Personalizer.undo)
    reset = _blocking(Personalizer.reset)
    pin = _blocking(Personalizer.pin)
    export = _blocking(Personalizer.export)
    export_version = _blocking(Personalizer.export_version)
    import_ = _blocking(Personalizer.import_)
    forget = _blocking(Personalizer.forget)

    @contextlib.contextmanager
    def workspace(self, user: str) -> Iterator[Path]:
        """See ``Personalizer.workspace``."""
        self._check_open()
        block = self._app.workspace(user)
        folder = self._thread.run(_enter(block))
        try:
            yield folder
        finally:
            self._thread.run(_leave(block))

    @property
    def store(self):
        """See ``Personalizer.store``."""
        return self._app.store

    def status(self) -> dict[str, Any]:
        """See ``Personalizer.status``."""
        return self._app.status()
