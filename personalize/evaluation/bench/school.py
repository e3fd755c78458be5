"""Updates beside the replies, as the service runs them: trained in passes, published to a store, put into a slot."""

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from personalize.evaluation.bench.serving import random_adapter
from personalize.learner import HindsightLearner
from personalize.model.folder import write_adapter
from personalize.model.lora import LoraTensors
from personalize.runtime.device import Runtime
from personalize.types import AdapterRef, Experience, Lesson, Outcome, UpdateReport
from personalize.updates.storage import reference

MAX_BATCH = 4
"""Users in one pass, as the local backend has it on a CPU."""


@dataclass(slots=True, eq=False)
class Chatter:
    """One user.

    Attributes:
        turn: what is asked again and again, and what was answered the first time.
        head: the version that answers; None for the base.
        number: its number in the store.
    """

    user_id: str
    turn: Experience
    head: AdapterRef | None = None
    number: int | None = None


@dataclass(frozen=True, slots=True)
class FollowUp:
    """A finished turn, and when its follow-up was accepted."""

    chatter: Chatter
    turn: Experience
    accepted_s: float = field(default_factory=time.perf_counter)


class School:
    """Trains what waits, one pass at a time, at most one turn of a user in it.

    Attributes:
        freshness_s: of every update, from its follow-up to the moment when its version serves new requests.
    """

    def __init__(self, runtime: Runtime, learner: HindsightLearner, store: Any):
        """Begin to wait; on an event loop."""
        self.freshness_s: list[float] = []
        self._runtime, self._learner, self._store = runtime, learner, store
        self._waiting: deque[FollowUp] = deque()
        self._more = asyncio.Event()
        self._closing = False
        self._task = asyncio.create_task(self._run())

    def teach(self, follow_up: FollowUp) -> None:
        self._waiting.append(follow_up)
        self._more.set()

    async def finish(self) -> None:
        """Return when everything that was handed in is served.

        Raises:
            RuntimeError: an update was not applied.
        """
        self._closing = True
        self._more.set()
        await self._task

    async def stop(self) -> None:
        """Give up what waits."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while self._waiting or not self._closing:
            self._more.clear()
            if self._waiting:
                await self._train(self._next())
            else:
                await self._more.wait()

    def _next(self) -> list[FollowUp]:
        """Take the oldest follow-up of each of the first users."""
        chosen: dict[Chatter, FollowUp] = {}
        for one in self._waiting:
            if len(chosen) < MAX_BATCH:
                chosen.setdefault(one.chatter, one)
        for one in chosen.values():
            self._waiting.remove(one)
        return list(chosen.values())

    async def _train(self, batch: list[FollowUp]) -> None:
        folders = [await asyncio.to_thread(self._store.stage, one.chatter.user_id) for one in batch]
        lessons, heads = [Lesson(one.turn) for one in batch], [one.chatter.head for one in batch]
        run = self._runtime.run_update(partial(self._learner.update, lessons, heads, folders))
        reports = await asyncio.wrap_future(run.reports)
        for one, folder, report in zip(batch, folders, reports, strict=True):
            await self._publish(one, folder, report)

    async def _publish(self, one: FollowUp, folder: Path, report: UpdateReport) -> None:
        if report.outcome is not Outcome.APPLIED:
            raise RuntimeError(f"an update ended with {report.outcome}; only applied ones may be measured")
        await publish(self._runtime, self._store, one.chatter, folder, report.tensors)
        self.freshness_s.append(time.perf_counter() - one.accepted_s)


async def first_version(runtime: Runtime, store: Any, number: int, turn: Experience) -> Chatter:
    """Return a new user whose first version is in the store and in a slot."""
    user = await asyncio.to_thread(store.ensure_user, f"user {number}")
    chatter, tensors = Chatter(user.user_id, turn), random_adapter(runtime.engine.base, number)
    folder = await asyncio.to_thread(store.stage, user.user_id)
    await asyncio.to_thread(write_adapter, folder, tensors, runtime.engine.base)
    await publish(runtime, store, chatter, folder, tensors)
    return chatter


async def publish(runtime: Runtime, store: Any, chatter: Chatter, folder: Path, tensors: LoraTensors) -> None:
    """Make the staged folder the user's head, in the store and then in the engine."""
    version = await asyncio.to_thread(
        store.publish, folder, user_id=chatter.user_id, base_digest=runtime.engine.base.base_digest,
        parent=chatter.number, epoch=0, update_id=None, state={}, metrics={},
    )  # fmt: skip
    ref = await asyncio.to_thread(reference, store, version)
    assert ref is not None
    await asyncio.wrap_future(runtime.prepare(ref, tensors))
    chatter.head, chatter.number = ref, version.number
