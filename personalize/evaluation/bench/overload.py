"""Constant overload: through the whole service, follow-ups come several times as fast as they can be learnt from."""

import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from personalize.backends import Opened
from personalize.backends.local import LocalBackend
from personalize.config import ServiceSettings, Settings
from personalize.evaluation.bench.lessons import ONE_STEP, experience, parents, warm_learner
from personalize.evaluation.bench.rows import Row
from personalize.evaluation.bench.scale import Scale
from personalize.evaluation.bench.school import MAX_BATCH
from personalize.evaluation.bench.streams import open_runtime
from personalize.evaluation.bench.subject import Subject
from personalize.evaluation.bench.update import update_side
from personalize.service import Personalizer
from personalize.types import ChatRequest, Message, Outcome, SamplingParams, UpdateInfo
from personalize.updates.storage import open_store

NUM_USERS = 4
REPLY = 8
"""Tokens of a reply on average: few, so that everybody complains again soon."""
_MIN_LIMIT_S = 6.0
_LIMITS = 3  # the load lasts for so many limits
_SHED = (Outcome.SUPERSEDED, Outcome.SKIPPED_BUDGET)


class Ending:
    """A vocabulary in which one id in ``REPLY`` ends the reply: nothing is learnt from replies that were cut off."""

    def __init__(self, subject: Subject):
        self._subject = subject
        self.end_ids = frozenset(range(0, subject.base.vocab_size, REPLY))

    def decode(self, ids: Sequence[int]) -> str:
        return self._subject.vocabulary.decode([one for one in ids if one not in self.end_ids])


class Noting(LocalBackend):
    """Writes down when each turn's update began."""

    def __init__(self, *parts: Any):
        super().__init__(*parts)
        self.began_s: dict[str, float] = {}

    async def run_update(self, lessons, parents, out_dirs):
        now_s = time.time()
        self.began_s |= {lesson.experience.turn_id: now_s for lesson in lessons}
        return await super().run_update(lessons, parents, out_dirs)


def measure(subject: Subject, scale: Scale) -> list[Row]:
    """Measure the longest time that an update waits before it begins or ends, over the limit that was set.

    The limit of this run is two passes over as many users as train together, beside streams.
    """
    turn = experience(subject.base, 1, 32, REPLY)
    with parents(subject, 1) as (parent,):
        update_s = update_side(subject, ONE_STEP, turn, parent)() / 1000
    limit_s = max(_MIN_LIMIT_S, 4 * MAX_BATCH * update_s)
    waits, outcomes = asyncio.run(_run(subject, limit_s))
    shed = sum(outcomes[outcome] for outcome in _SHED)
    return [
        Row(
            figure=f"longest wait without an outcome under constant overload, {NUM_USERS} users, over the limit",
            value=max(waits) / limit_s,
            goal="≤ 1",
            n=len(waits),
            reason=f"limit {limit_s:.3g} s; {outcomes[Outcome.APPLIED]} applied, {shed} superseded or skipped",
            samples={"limit": limit_s * 1000, "longest wait": max(waits) * 1000, "update": update_s * 1000},
        )
    ]


async def _run(subject: Subject, limit_s: float) -> tuple[list[float], Counter[Outcome]]:
    """Return how long every update waited, and what became of them."""
    base = subject.base
    assert base.renderer is not None
    subject = replace(subject, vocabulary=Ending(subject))
    backend = Noting(base, open_runtime(subject, NUM_USERS), warm_learner(base, ONE_STEP))
    opened = Opened(backend, backend, base.renderer, base.base_digest, base.max_model_len, MAX_BATCH, base.targets)
    with tempfile.TemporaryDirectory() as home:
        settings = Settings(home=Path(home), service=ServiceSettings(max_update_wait_s=limit_s, review_every=0))
        app = Personalizer(open_store(settings), opened, settings)
        app.start()
        try:
            until_s = time.time() + _LIMITS * limit_s
            await asyncio.gather(*(_complain(app, f"user {number}", until_s) for number in range(NUM_USERS)))
            told = [info for number in range(NUM_USERS) for info in await app.updates(f"user {number}", 1000)]
            now_s = time.time()
            return [_waited(info, backend, now_s) for info in told], Counter(info.outcome for info in told)
        finally:
            await app.aclose()


async def _complain(app: Personalizer, user: str, until_s: float) -> None:
    """Ask, and complain about the answer, again and again."""
    number = 0
    while time.time() < until_s:
        number += 1
        talk = [Message("user", f"word{number} and word{number % 7}")]
        (reply,) = await app.complete(_request(user, talk))
        talk += [Message("assistant", reply.text), Message("user", "Shorter, please.")]
        await app.complete(_request(user, talk))


def _request(user: str, talk: list[Message]) -> ChatRequest:
    return ChatRequest(tuple(talk), user, SamplingParams(temperature=1.0, max_tokens=16 * REPLY))


def _waited(info: UpdateInfo, backend: Noting, now_s: float) -> float:
    ended_s = now_s if info.finished_s is None else info.finished_s
    return backend.began_s.get(info.turn_id, ended_s) - info.created_s
