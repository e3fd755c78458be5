"""A service on the echo backend and the real store."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from adapters_store import LocalBlobs, Store
from personalize.backends import Opened
from personalize.backends.echo import BASE_DIGEST, EchoBackend
from personalize.config import ServiceSettings, Settings
from personalize.service import Personalizer
from personalize.types import AdapterRef, ChatRequest, Lesson, Message, Outcome, Reply
from personalize.updates.storage import open_store


@contextlib.asynccontextmanager
async def opened(
    home: Path,
    backend: EchoBackend | None = None,
    *,
    base_digest: str = BASE_DIGEST,
    store: Store | None = None,
    learns: bool = True,
    **service: Any,
) -> AsyncIterator[Personalizer]:
    """A running service; ``learns=False`` leaves the queue alone."""
    app = made(home, backend, base_digest, store, **service)
    if learns:
        app.start()
    try:
        yield app
    finally:
        await app.aclose()


def made(
    home: Path,
    backend: EchoBackend | None = None,
    base_digest: str = BASE_DIGEST,
    store: Store | None = None,
    **service: Any,
) -> Personalizer:
    backend = backend or EchoBackend()
    settings = Settings(model="echo", backend="echo", home=home, service=ServiceSettings(**service))
    engine = Opened(backend, backend, backend.renderer, base_digest, backend.max_model_len, max_batch=8)
    return Personalizer(store or open_store(settings), engine, settings)


class Watched(EchoBackend):
    """Keeps the lessons and their parents, and runs ``before`` (their number so far) ahead of each."""

    def __init__(
        self,
        before: Callable[[int], None] = lambda number: None,
        judge: Callable[[Lesson], Outcome] = lambda lesson: Outcome.APPLIED,
    ):
        super().__init__(judge)
        self.before = before
        self.lessons: list[Lesson] = []
        self.parents: list[AdapterRef | None] = []

    async def run_update(self, lessons, parents, out_dirs):
        self.lessons += lessons
        self.parents += parents
        self.before(len(self.lessons))
        return await super().run_update(lessons, parents, out_dirs)


class HeldUp:
    """A blocking call that waits ahead of its work (``first``) or behind it until it is let ``through``."""

    def __init__(self, call: Callable[..., Any], first: bool = False):
        self.call, self.first = call, first
        self.reached, self.through, self.done = threading.Event(), threading.Event(), threading.Event()

    def __call__(self, *args: Any, **options: Any) -> Any:
        if self.first:
            self._wait()
        result = self.call(*args, **options)
        if not self.first:
            self._wait()
        self.done.set()
        return result

    async def is_reached(self) -> None:
        assert await asyncio.to_thread(self.reached.wait, 20)

    def _wait(self) -> None:
        self.reached.set()
        assert self.through.wait(20)


def staged(home: Path) -> list[Path]:
    """Folders of versions in the making."""
    return list((home / "staging").glob("*/*"))


class Disk:
    """A disk whose fill can be set; for ``LocalBlobs(disk_usage=…)``."""

    used = 0.1

    def __call__(self, path: Path) -> tuple[int, int, int]:
        used = int(1000 * self.used)
        return 1000, used, 1000 - used


def store_on(disk: Disk, home: Path) -> Store:
    return Store.open(f"sqlite:///{home / 'index.sqlite'}", LocalBlobs(home, disk))


def says(*texts: str, **options: Any) -> ChatRequest:
    """A conversation whose texts alternate between user and assistant, the user first."""
    roles = ("user", "assistant")
    messages = tuple(Message(roles[i % 2], text) for i, text in enumerate(texts))
    return ChatRequest(messages, **{"user": "alice", **options})


async def ask(app: Personalizer, *texts: str, **options: Any) -> Reply:
    return (await app.complete(says(*texts, **options)))[0]


async def taught(app: Personalizer, first: str = "hello", then: str = "shorter, please", user: str = "alice") -> Reply:
    """One chat with one follow-up, learnt."""
    reply = await ask(app, first, user=user)
    after = await ask(app, first, reply.text, then, user=user)
    assert after.outcome is Outcome.QUEUED
    assert await app.settled(user, timeout_s=20)
    return after


async def until(true: Callable[[], bool | Awaitable[bool]], timeout_s: float = 10.0) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(timeout_s):
        while True:
            held = true()
            if await held if isinstance(held, Awaitable) else held:
                return
            await asyncio.sleep(0.01)
