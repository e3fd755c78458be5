"""The blocking twin: the same methods, run on an event loop that has a thread of its own."""

import contextlib
import functools
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

from personalize.config import Learning, Settings
from personalize.loops import LoopIterator, LoopThread
from personalize.service.personalizer import Personalizer

P = ParamSpec("P")
T = TypeVar("T")


def _blocking(
    method: Callable[Concatenate[Personalizer, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate["SyncPersonalizer", P], T]:
    @functools.wraps(method)
    def call(self: "SyncPersonalizer", *args: P.args, **kwargs: P.kwargs) -> T:
        return self._thread.run(method, self._app, *args, **kwargs)

    return call


def _iterating(
    method: Callable[Concatenate[Personalizer, P], AsyncGenerator[T]],
) -> Callable[Concatenate["SyncPersonalizer", P], LoopIterator[T]]:
    @functools.wraps(method)
    def call(self: "SyncPersonalizer", *args: P.args, **kwargs: P.kwargs) -> LoopIterator[T]:
        return self._thread.iterate(method(self._app, *args, **kwargs))

    return call


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
        thread = LoopThread("personalize", "the service is closed")

        async def start() -> Personalizer:
            return await Personalizer.open(
                model, home=home, device=device, learning=learning, recipe=recipe, settings=settings
            )

        try:
            return cls(thread.run(start), thread)
        except BaseException:
            thread.close()
            raise

    def close(self) -> None:
        """Close the service and its thread. May be called twice."""
        self._thread.close(self._app.aclose)

    def __enter__(self) -> "SyncPersonalizer":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

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
        block = self._app.workspace(user)
        folder = self._thread.run(_enter, block)
        try:
            yield folder
        finally:
            self._thread.run(_leave, block)

    @property
    def store(self):
        """See ``Personalizer.store``."""
        return self._app.store

    def status(self) -> dict[str, Any]:
        """See ``Personalizer.status``."""
        return self._app.status()
