"""Taking back what one turn taught, whenever that was.

Of the last turn it is exact: the version before it is kept, and becomes the head. Of an older turn it is a
re-computation: the later logged steps are learnt once more, from the exact version that the turn's own step began with,
as if the turn had never been. What comes out is a version like any other, and says of itself what it is.
"""

import asyncio
import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass

from adapters_store import Store
from adapters_store.errors import NotFound as Missing
from adapters_store.types import BEGAN_WITH, RECOMPUTATION, RECOMPUTED_FROM, Update, User, Version
from personalize.backends import Opened
from personalize.config import Learning
from personalize.errors import AdapterMismatch, Conflict, Gone, InvalidParameter, NotFound, Overloaded
from personalize.service.case import named
from personalize.service.retraining import Retraining, Step, logged_steps, told
from personalize.service.tasks import Tasks
from personalize.types import AdapterRef, Experience, LearningState, Outcome, UndoReport, UndoStatus
from personalize.updates.consumer import Consumer
from personalize.updates.lessons import refusal
from personalize.updates.lineage import Lineage, lineage_of
from personalize.updates.storage import reference, translated
from personalize.updates.threads import whole

MAX_PENDING = 8
MAX_NAMED = 8
WITHOUT = "without"
"""Metric of a recomputation: number of the version that the undone turn had made."""
_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Plan:
    """What undoing one turn takes.

    Attributes:
        head: the version that is to be replaced.
        undone: number of the version that the turn's step made.
        start: the newest kept version that has learnt nothing but what stays; None begins anew.
        learnt: what ``start`` is made of.
        later: steps that ``start`` lacks, oldest first, as number and turn; none: ``start`` is what is wanted.
    """

    user: User
    turn_id: str
    head: Version
    undone: int
    start: Version | None
    learnt: Lineage
    later: tuple[tuple[int, str], ...]

    def report(self, status: UndoStatus, version: int | None = None, again: Retraining | None = None) -> UndoReport:
        return UndoReport(
            user_id=self.user.user_id,
            turn_id=self.turn_id,
            status=status,
            replaced=self.head.number,
            start=self.start.number if self.start else None,
            version=version,
            num_turns=len(self.later),
            outcomes=dict(again.outcomes) if again else {},
        )


class Undo:
    """Takes turns back, one at a time.

    Semantics: while the later steps are learnt again the user's new follow-ups wait in the queue, and are learnt on top
    of the result. Whoever else moves the head meanwhile wins: nothing is changed then. Until the one transaction that
    publishes, and after a crash before it, the old head serves.

    Attributes:
        tasks: re-computations under way.

    Args:
        forgotten: ids of users of whom nothing may be learnt any more; grows while it is in use.
    """

    def __init__(
        self, store: Store, opened: Opened, learning: Learning, consumer: Consumer, forgotten: Collection[str]
    ):
        self.tasks = Tasks()
        self._store = store
        self._opened = opened
        self._learning: Learning = learning
        self._consumer = consumer
        self._forgotten = forgotten
        self._one = asyncio.Lock()

    async def run(self, user_id: str, asked: str, dry_run: bool) -> UndoReport:
        """See ``Personalizer.undo_turn``."""
        if not isinstance(asked, str) or not _ID.fullmatch(asked):
            raise InvalidParameter("turn", asked, "the 32 hex digits of a turn, or of the update about it")
        plan = await asyncio.to_thread(self._plan, user_id, asked)
        if dry_run:
            await asyncio.to_thread(self._steps, plan)
            return plan.report("planned")
        if not plan.later:
            return plan.report("exact", await whole(self._go_back, plan))
        if len(self.tasks) >= MAX_PENDING:
            raise Overloaded(f"{MAX_PENDING} turns are being undone; allowed: no more at a time")
        if user_id in self._forgotten:
            raise NotFound("no such user", param="user")
        return await self.tasks.run(user_id, self._recompute(user_id, asked))

    async def _recompute(self, user_id: str, asked: str) -> UndoReport:
        async with self._one, self._consumer.held(user_id):
            plan = await asyncio.to_thread(self._plan, user_id, asked)  # anew: the head may have moved until now
            if not plan.later:
                return plan.report("exact", await whole(self._go_back, plan))
            steps = await asyncio.to_thread(self._steps, plan)
            async with await asyncio.to_thread(self._retraining, plan) as again:
                for step in steps:
                    await again.learn(step)
                version = await self._publish(plan, again)
        self._consumer.reviewer.note(user_id)
        return plan.report("recomputed", version, again)

    async def _publish(self, plan: Plan, again: Retraining) -> int | None:
        """Return the number of the new head; None where nothing was left to learn, and the beginning serves again."""
        if not again.learnt:
            return await whole(self._go_back, plan)
        came_from = plan.start.number if plan.start else 0
        metrics: dict[str, float] = {RECOMPUTED_FROM: came_from, WITHOUT: plan.undone, "num_turns": len(plan.later)}
        if (began_with := plan.head.metrics.get(BEGAN_WITH)) is not None:
            metrics[BEGAN_WITH] = began_with
        why = {"turn": plan.turn_id, "before": plan.head.number, "from": came_from, "steps": len(again.learnt)}
        version = await again.publish(
            parent=plan.head.number, lineage=plan.learnt, origin=RECOMPUTATION, metrics=metrics, why=why
        )
        return version.number

    def _go_back(self, plan: Plan) -> int | None:
        """Make the start the head, as it is."""
        number = plan.start.number if plan.start else None
        base_digest = self._opened.base_digest
        with translated():
            self._store.undo_to(plan.user.user_id, base_digest, plan.head.number, number, turn=plan.turn_id)
        return number

    # --- what there is -----------------------------------------------------------------------------------------------

    def _plan(self, user_id: str, asked: str) -> Plan:
        with translated():
            user = self._store.get_user(user_id)
            if user is None:
                raise NotFound("no such user", param="user")
            update = self._update(user_id, asked)
            head = self._store.head(user_id, self._opened.base_digest)
            if head is None:
                raise Conflict("there is nothing to undo: the user has no version on this base")
            lineage = lineage_of(self._store, head)
            undone = self._undone(update, head, lineage)
            wanted = lineage.without(undone)
            start = max(self._starts(user_id, wanted), key=lambda one: (len(one[1].steps), one[0].number), default=None)
            version, learnt = start or (None, Lineage())
            if version is None and wanted.root is not None:
                raise Gone(f"version {wanted.root}, which the adapter began with, has been removed", param="turn")
            turns = logged_steps(self._store, user_id)
            later = wanted.steps[len(learnt.steps) :]
            if not turns.keys() >= set(later):  # all rows of the user go at once
                raise NotFound("the user was forgotten meanwhile", param="user")
            return Plan(user, update.turn_id, head, undone, version, learnt, tuple((n, turns[n]) for n in later))

    def _update(self, user_id: str, asked: str) -> Update:
        """Return the update that the turn, or its own id, names; it has made a version."""
        if (update := named(self._store, user_id, asked)) is None:
            with suppress(Missing):
                if self._store.load_turn(asked).user_id == user_id:
                    raise Conflict(f"turn {asked} has taught nothing: no follow-up about it was queued")
            raise NotFound("no such turn", param="turn")
        if update.outcome != Outcome.APPLIED or update.version is None:
            raise Conflict(
                f"turn {update.turn_id} has taught nothing: its outcome is {update.outcome!r}; allowed: an applied one"
            )
        return update

    def _undone(self, update: Update, head: Version, lineage: Lineage) -> int:
        """Return the number of the step that is to go; the head has learnt it."""
        number = update.version
        assert number is not None
        if number in lineage.steps:
            return number
        if not lineage.whole and lineage.root is not None and number <= lineage.root:
            raise Gone(f"whether version {head.number} has learnt from turn {update.turn_id} is not known any more")
        with suppress(Missing):
            if self._store.version(head.user_id, number).base_digest != head.base_digest:
                raise AdapterMismatch(f"turn {update.turn_id} has taught an adapter for another base", param="turn")
        raise Conflict(
            f"turn {update.turn_id} is not in version {head.number}, the head: it was undone already, or the head went "
            "back behind it"
        )

    def _starts(self, user_id: str, wanted: Lineage) -> Iterator[tuple[Version, Lineage]]:
        """Yield the kept versions that have learnt nothing but the first of the steps that stay."""
        for version in self._store.versions(user_id, self._opened.base_digest):
            learnt = lineage_of(self._store, version)
            if learnt.begins(wanted):
                with suppress(Missing):  # its row is there, its folder is not
                    self._store.path(version)
                    yield version, learnt

    def _steps(self, plan: Plan) -> list[Step]:
        """Return the later steps with what they were about.

        Raises:
            Conflict: nothing may be learnt from the user now.
            Gone: a text is gone, so its step cannot be repeated.
        """
        if (refused := refusal(plan.user, self._learning)) is not None and plan.later:
            raise Conflict(f"{len(plan.later)} later turns would be learnt again, and the user allows none: {refused}")
        with translated():
            found = [
                (number, name, told(self._store, self._opened, plan.user.user_id, name)) for number, name in plan.later
            ]
        if gone := [name for _, name, turn in found if not isinstance(turn, Experience)]:
            names = ", ".join(gone[:MAX_NAMED]) + (
                f" and {len(gone) - MAX_NAMED} more" if len(gone) > MAX_NAMED else ""
            )
            raise Gone(f"what was said in later turns is gone, so they cannot be learnt again: {names}", param="turn")
        return [Step(number, turn) for number, _, turn in found if isinstance(turn, Experience)]

    def _retraining(self, plan: Plan) -> Retraining:
        with translated():
            state = LearningState.from_json(plan.start.state if plan.start else None)
            names = dict.fromkeys((*state.block, *state.replay))
            memory = [told(self._store, self._opened, plan.user.user_id, name) for name in names]
            return Retraining(
                self._store,
                self._opened,
                plan.user,
                parent=self._beginning(plan),
                state=state,
                memory=[turn for turn in memory if isinstance(turn, Experience)],
                moments=self._store.moments_path(plan.start) if plan.start else None,
            )

    def _beginning(self, plan: Plan) -> AdapterRef | None:
        """Return whose weights the first step begins with; None is a new adapter."""
        begun = plan.head.metrics.get(BEGAN_WITH)
        if plan.start is not None or begun is None:
            return reference(self._store, plan.start)
        owner = self._store.ensure_population_owner()
        try:
            return reference(self._store, self._store.version(owner.user_id, int(begun)))
        except Missing as error:
            raise Gone(
                f"version {int(begun)} of the population adapter, which the adapter began with, is gone"
            ) from error
