"""A user's adapter made again for another base, from the turns that are kept.

The old adapter's weights mean nothing to another base; its lessons do. They are told to the new base in its own ids and
learnt one after the other, each from the folder that the one before has written. Only the last folder is published: a
user has the whole rebuilt adapter or none. The head of the old base stays where it is.
"""

import asyncio
import contextlib
import secrets
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from adapters_store import Store
from adapters_store.errors import NotFound as Missing
from adapters_store.types import User, Version
from personalize.backends import Opened
from personalize.config import Learning
from personalize.errors import Conflict, ContextTooLong, InvalidRequest, NotFound
from personalize.types import (
    AdapterRef,
    Experience,
    LearningState,
    Lesson,
    Outcome,
    RebaseReport,
    RebaseStatus,
    UpdateReport,
)
from personalize.updates.batch import whole
from personalize.updates.lessons import experience, refusal, retold
from personalize.updates.storage import translated

MAX_UPDATES = 1_000_000
SOURCE = "rebased_from"
"""Metric of a rebuilt version: number of the other base's head that it was rebuilt from."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be learnt again, and for whom.

    Attributes:
        source: the head of another base that is rebuilt.
        turns: oldest first.
        outcomes: of turns that this base cannot read.
    """

    user: User
    status: RebaseStatus
    source: Version | None = None
    turns: tuple[Experience, ...] = ()
    num_lost: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)

    def report(self, status: RebaseStatus, outcomes: Counter[str], version: int | None = None) -> RebaseReport:
        source = self.source.number if self.source else None
        num_turns = len(self.turns)
        return RebaseReport(self.user.user_id, status, source, version, num_turns, self.num_lost, dict(outcomes))


@dataclass(slots=True)
class Progress:
    """The adapter as far as it is rebuilt; ``folder`` is staged, and None until something was learnt."""

    folder: Path | None = None
    state: LearningState = field(default_factory=LearningState)
    last: UpdateReport | None = None
    outcomes: Counter[str] = field(default_factory=Counter)


class Rebase:
    """Rebuilds adapters for the opened base."""

    def __init__(self, store: Store, opened: Opened, learning: Learning):
        self._store = store
        self._opened = opened
        self._learning: Learning = learning

    async def run(self, user_id: str, dry_run: bool) -> RebaseReport:
        """See ``Personalizer.rebase``."""
        plan = await asyncio.to_thread(self._plan, user_id)
        if dry_run or plan.status != "planned":
            return plan.report(plan.status, plan.outcomes)
        progress = Progress(outcomes=Counter(plan.outcomes))
        try:
            await self._learn(plan, progress)
            if progress.folder is None:
                return plan.report("nothing_learnt", progress.outcomes)
            version = await whole(self._publish, plan, progress)
        except Exception as error:
            if await whole(self._gone, user_id):  # whatever it stumbled over: that is why
                raise NotFound("the user was forgotten meanwhile", param="user") from error
            raise
        finally:
            await self._discard(progress.folder)
        return plan.report("rebuilt", progress.outcomes, version.number)

    def _gone(self, user_id: str) -> bool:
        with translated():
            return self._store.get_user(user_id) is None

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
        lineage = list(self._lineage(source))
        if any(version.origin == "import" for version in lineage):
            return Plan(user, "imported", source)
        numbers = {version.number for version in lineage}
        states = [LearningState.from_json(version.state) for version in lineage]
        remembered = {turn_id for state in states for turn_id in (*state.block, *state.replay)}
        turns, num_lost, outcomes = [], 0, Counter[str]()
        for update in reversed(self._store.updates(user.user_id, MAX_UPDATES, outcome=Outcome.APPLIED)):
            if update.version not in numbers and update.turn_id not in remembered:
                # Retention has taken the version; whether the user went back behind it nobody can tell.
                num_lost += update.version is not None and update.version < min(numbers)
                continue
            found = self._told(user, update.turn_id)
            if isinstance(found, Experience):
                turns.append(found)
                continue
            num_lost += 1
            outcomes.update([found.value] if found else [])
        return Plan(user, "planned" if turns else "no_turns", source, tuple(turns), num_lost, outcomes)

    def _lineage(self, head: Version) -> Iterator[Version]:
        """The head and the versions that it was made from, as far back as their rows are kept."""
        kept = {version.number: version for version in self._store.versions(head.user_id)}
        number: int | None = head.number
        while number is not None and (version := kept.get(number)) is not None:
            yield version
            source = version.metrics.get(SOURCE)
            number = version.parent if source is None else int(source)

    def _told(self, user: User, turn_id: str) -> Experience | Outcome | None:
        """Return the turn in the new base's ids; why not, or None where it is gone."""
        try:
            turn = self._store.load_turn(turn_id)
        except Missing:
            return None
        if turn.user_id != user.user_id or not turn.follow_up:
            return None
        if turn.base_digest == self._opened.base_digest:
            return experience(turn, turn.follow_up)
        try:
            return retold(self._opened.renderer, turn, turn.follow_up)
        except ContextTooLong:
            return Outcome.SKIPPED_TOO_LONG
        except InvalidRequest:  # the chat template refuses the messages
            return Outcome.FAILED

    # --- learning it again -------------------------------------------------------------------------------------------

    async def _learn(self, plan: Plan, progress: Progress) -> None:
        known: dict[str, Experience] = {}
        for number, turn in enumerate(plan.turns, start=1):
            known[turn.turn_id] = turn
            named = dict.fromkeys((*progress.state.block, *progress.state.replay))
            memory = tuple(known[turn_id] for turn_id in named if turn_id in known and turn_id != turn.turn_id)
            parent = None if progress.folder is None else _staged(plan.user.user_id, number, progress.folder)
            await self._step(plan.user.user_id, Lesson(turn, memory, progress.state), parent, progress)

    async def _step(self, user_id: str, lesson: Lesson, parent: AdapterRef | None, progress: Progress) -> None:
        with translated():
            folder = await whole(self._store.stage, user_id)
        kept = False
        try:
            (report,) = await self._opened.trainer.run_update([lesson], [parent], [folder])
            progress.outcomes[report.outcome.value] += 1
            if report.outcome is Outcome.APPLIED:
                kept, before = True, progress.folder
                progress.folder, progress.state, progress.last = folder, report.state, report
                await self._discard(before)
        finally:
            if not kept:
                await self._discard(folder)

    def _publish(self, plan: Plan, progress: Progress) -> Version:
        assert plan.source is not None and progress.folder is not None and progress.last is not None
        with translated():
            head = self._store.head(plan.user.user_id, plan.source.base_digest)
            if head is None or head.number != plan.source.number:
                raise Conflict("the head to be rebuilt has moved meanwhile; nothing was changed")
            return self._store.publish(
                progress.folder,
                user_id=plan.user.user_id,
                base_digest=self._opened.base_digest,
                parent=None,
                epoch=plan.user.epoch,
                update_id=None,
                state=progress.state.to_json(),
                metrics={**progress.last.metrics, SOURCE: plan.source.number, "num_turns": len(plan.turns)},
                origin="rebase",
            )

    async def _discard(self, folder: Path | None) -> None:
        if folder is not None:
            with contextlib.suppress(Exception):  # what stays behind is an orphan, and those are swept
                await whole(self._store.discard, folder)


def _staged(user_id: str, number: int, folder: Path) -> AdapterRef:
    """Name a folder that only the learner reads; the engine never sees it."""
    return AdapterRef(f"u_{user_id}@{number}-{secrets.token_hex(8)}", str(folder))
