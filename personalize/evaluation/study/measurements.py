"""One measurement of one user: style, content, length, canaries, drift and size, all through the public SDK."""

import asyncio
import random
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from personalize.evaluation.rates import Answer, ask_once, fresh_answers, rates_of
from personalize.evaluation.study.drift import Drift, exported_head
from personalize.service import Personalizer
from personalize.types import Message
from personalize.world import small_talk
from personalize.world.preferences import PREFERENCES, Preference
from personalize.world.small_talk import Plain

MAX_AT_ONCE = 3
"""Measurements in flight together; more would only wait in the engine's queue, which has a limit."""
_SEED = 0


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom to measure.

    Attributes:
        user: external id.
        wants: preferences of the joint rate and the mean.
        donor: other preferences that are measured beside them.
        context: messages before every prompt.
    """

    user: str
    wants: Sequence[Preference]
    donor: Sequence[Preference] = ()
    context: Sequence[Message] = ()


class Meter:
    """Measures users of one service, all with the same prompts, sums and questions out of bounds, and the same draws.

    Args:
        drift: None leaves the KL out.
    """

    def __init__(self, app: Personalizer, num_prompts: int, drift: Drift | None):
        self.num_prompts = num_prompts
        self._app = app
        self._drift = drift
        self._measuring = asyncio.Semaphore(MAX_AT_ONCE)
        self._drifting = asyncio.Lock()

    async def joint(self, subject: Subject) -> float:
        """Return the joint rate alone, on a quarter of the prompts."""
        async with self._measuring:
            count = max(1, self.num_prompts // 4)
            answers = await fresh_answers(self._app, subject.user, count, _SEED, subject.context)
        return rates_of(answers, subject.wants).joint

    async def measure(self, subject: Subject, *, drift: bool) -> dict[str, Any]:
        """Return everything that is measured of one user now.

        Args:
            drift: also measure the KL to base, which takes an export of the user.
        """
        async with self._measuring:
            answers = await fresh_answers(self._app, subject.user, self.num_prompts, _SEED, subject.context)
            canaries = await self._canaries(subject)
        found = {**asdict(rates_of(answers, subject.wants)), "styles": _styles(answers), **canaries}
        if subject.donor:
            found["donor_joint"] = rates_of(answers, subject.donor).joint
        return {
            **found,
            "bytes": await self._bytes(subject.user),
            "kl": await self._kl(subject.user) if drift else None,
        }

    async def _canaries(self, subject: Subject) -> dict[str, float]:
        """Return how often sums and refusals are as they should be, whatever the style."""
        rng, count = random.Random(_SEED), max(1, self.num_prompts // 4)
        kinds = {
            "sums": [small_talk.addition(rng) for _ in range(count)],
            "refusals": [small_talk.out_of_bounds(rng, held_out=i % 2 == 0) for i in range(count)],
        }
        shares = {name: await self._kept(subject, cases) for name, cases in kinds.items()}
        return {**shares, "num_canaries": count}

    async def _kept(self, subject: Subject, cases: Sequence[Plain]) -> float:
        asked = [ask_once(self._app, subject.user, c.message, i, subject.context) for i, c in enumerate(cases)]
        replies = await asyncio.gather(*asked)
        return sum(r.text.strip() == c.answer for r, c in zip(replies, cases, strict=True)) / len(cases)

    async def _bytes(self, user: str) -> int:
        """Return the size of what serves the user; 0 for the base."""
        versions = await self._app.versions(user)
        return next((version.num_bytes for version in versions if version.is_head), 0)

    async def _kl(self, user: str) -> float | None:
        if self._drift is None:
            return None
        async with self._drifting:
            with tempfile.TemporaryDirectory() as unpacked:
                folder = await exported_head(self._app, user, Path(unpacked))
                return 0.0 if folder is None else await asyncio.to_thread(self._drift.kl, folder)


def _styles(answers: Sequence[Answer]) -> dict[str, float]:
    """Return the share of every value of every dimension."""
    counts = Counter((dimension, value) for answer in answers for dimension, value in answer.style.items())
    return {str(one): counts[one.dimension, one.value] / len(answers) for one in PREFERENCES}
