"""A user's adapter made again for another base, from the turns that are kept.

The old adapter's weights mean nothing to another base; its lessons do. They are told to the new base in its own ids and
learnt one after the other, each from the folder that the one before has written. Only the last folder is published: a
user has the whole rebuilt adapter or none. The head of the old base stays where it is.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from adapters_store import Store
from adapters_store.types import User, Version
from personalize.backends import Opened
from personalize.config import Learning
from personalize.errors import Conflict, NotFound
from personalize.service.retraining import Retraining, Step, logged_steps, told
from personalize.service.tasks import Tasks
from personalize.types import Experience, LearningState, RebaseReport, RebaseStatus
from personalize.updates.lessons import refusal
from personalize.updates.lineage import REBASED_FROM, Lineage, lineage_of
from personalize.updates.storage import translated


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be learnt again, and for whom.

    Attributes:
        source: the head of another base that is rebuilt.
        steps: oldest first.
        outcomes: of turns that this base cannot read.
    """

    user: User
    status: RebaseStatus
    source: Version | None = None
    steps: tuple[Step, ...] = ()
    num_lost: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)

    def report(self, status: RebaseStatus, outcomes: Counter[str], version: int | None = None) -> RebaseReport:
        source = self.source.number if self.source else None
        num_turns = len(self.steps)
        return RebaseReport(self.user.user_id, status, source, version, num_turns, self.num_lost, dict(outcomes))


class Rebase:
    """Rebuilds adapters for the opened base.

    Attributes:
        tasks: rebuilds under way.
    """

    def __init__(self, store: Store, opened: Opened, learning: Learning):
        self.tasks = Tasks()
        self._store = store
        self._opened = opened
        self._learning: Learning = learning

    async def run(self, user_id: str, dry_run: bool) -> RebaseReport:
        """See ``Personalizer.rebase``."""
        return await self.tasks.run(user_id, self._run(user_id, dry_run))

    async def _run(self, user_id: str, dry_run: bool) -> RebaseReport:
        plan = await asyncio.to_thread(self._plan, user_id)
        if dry_run or plan.status != "planned" or plan.source is None:
            return plan.report(plan.status, plan.outcomes)
        async with Retraining(self._store, self._opened, plan.user) as again:
            for step in plan.steps:
                await again.learn(step)
            outcomes = plan.outcomes + again.outcomes
            if not again.learnt:
                return plan.report("nothing_learnt", outcomes)
            await asyncio.to_thread(self._check, plan.source)
            rebuilt = {REBASED_FROM: plan.source.number, "num_turns": len(plan.steps)}
            version = await again.publish(parent=None, lineage=Lineage(), origin="rebase", metrics=rebuilt)
        return plan.report("rebuilt", outcomes, version.number)

    def _check(self, source: Version) -> None:
        with translated():
            head = self._store.head(source.user_id, source.base_digest)
        if head is None or head.number != source.number:
            raise Conflict("the head to be rebuilt has moved meanwhile; nothing was changed")

    # --- what there is -----------------------------------------------------------------------------------------------

    def _plan(self, user_id: str) -> Plan:
        with translated():
            user = self._store.get_user(user_id)
            if user is None:
                raise NotFound("no such user", param="user")
            if not self._store.has_other_heads(user_id, self._opened.base_digest):
                return Plan(user, "current" if any(self._heads(user_id)) else "no_adapter")
            if refusal(user, self._learning) is not None:
                return Plan(user, "refused")
            return self._kept(user, max(self._heads(user_id), key=lambda head: (head.created_s, head.number)))

    def _heads(self, user_id: str) -> Iterator[Version]:
        for base_digest in {version.base_digest for version in self._store.versions(user_id)}:
            if (head := self._store.head(user_id, base_digest)) is not None:
                yield head

    def _kept(self, user: User, source: Version) -> Plan:
        lineage = lineage_of(self._store, source)
        if lineage.root is not None and lineage.whole:
            return Plan(user, "imported", source)
        remembered = LearningState.from_json(source.state)
        steps, num_lost, outcomes = [], 0, Counter[str]()
        for number, turn_id in logged_steps(self._store, user.user_id).items():
            if number not in lineage.steps and turn_id not in (*remembered.block, *remembered.replay):
                # Of the versions before the root nobody can tell whether the user went back behind them.
                num_lost += lineage.root is not None and number <= lineage.root
                continue
            found = told(self._store, self._opened, user.user_id, turn_id)
            if isinstance(found, Experience):
                steps.append(Step(number, found))
                continue
            num_lost += 1
            outcomes.update([found.value] if found else [])
        return Plan(user, "planned" if steps else "no_turns", source, tuple(steps), num_lost, outcomes)
