"""Logged steps learnt once more, outside the queue: nothing is seen of it until the last folder is published."""

import contextlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from adapters_store import Store
from adapters_store.errors import NotFound as Missing
from adapters_store.folder import MOMENTS
from adapters_store.types import User, Version
from personalize.backends import Opened
from personalize.errors import ContextTooLong, InvalidRequest, NotFound
from personalize.types import AdapterRef, Experience, LearningState, Lesson, Outcome, UpdateReport
from personalize.updates.lessons import experience, retold
from personalize.updates.lineage import KEY, Lineage
from personalize.updates.storage import translated, unpublished
from personalize.updates.threads import whole

MAX_UPDATES = 1_000_000


@dataclass(frozen=True, slots=True)
class Step:
    """A logged step: the number of the version that it made, and its turn as the opened base reads it."""

    number: int
    turn: Experience


def logged_steps(store: Store, user_id: str) -> dict[int, str]:
    """Return the turn of every applied update of the user, by the number of its version, in ascending order."""
    applied = store.updates(user_id, MAX_UPDATES, outcome=Outcome.APPLIED)
    return dict(sorted((update.version, update.turn_id) for update in applied if update.version is not None))


def told(store: Store, opened: Opened, user_id: str, turn_id: str) -> Experience | Outcome | None:
    """Return a turn of the user as the opened base reads it; why it cannot, or None where the turn is gone."""
    try:
        turn = store.load_turn(turn_id)
    except Missing:
        return None
    # An imported state may name any turn.
    if turn.user_id != user_id or not turn.follow_up:
        return None
    if turn.base_digest == opened.base_digest:
        return experience(turn, turn.follow_up)
    try:
        return retold(opened.renderer, turn, turn.follow_up)
    except ContextTooLong:
        return Outcome.SKIPPED_TOO_LONG
    except InvalidRequest:  # the chat template refuses the messages
        return Outcome.FAILED


class Retraining:
    """One user's turns learnt one after the other, each from the folder that the one before has written.

    ``async with`` it: at the end of the block what was not published is gone. Steps are those of the queue, with the
    same gate and guards; a turn that is skipped or rejected leaves the adapter as it was.

    Attributes:
        state: the recipe's memory as of now.
        learnt: numbers of the logged steps that were applied.
        outcomes: how many steps came to what.

    Args:
        parent: what the first step begins with; None is a new adapter.
        state: the recipe's memory at ``parent``.
        memory: the turns that ``state`` names, as far as they are kept.
        moments: the optimizer's file after ``parent``, where it was kept.
    """

    def __init__(
        self,
        store: Store,
        opened: Opened,
        user: User,
        *,
        parent: AdapterRef | None = None,
        state: LearningState | None = None,
        memory: Iterable[Experience] = (),
        moments: Path | None = None,
    ):
        self.state = state or LearningState()
        self.learnt: list[int] = []
        self.outcomes: Counter[str] = Counter()
        self._store = store
        self._opened = opened
        self._user = user
        self._parent = parent
        self._known = {turn.turn_id: turn for turn in memory}
        self._staged: list[Path] = []
        self._folder: Path | None = None
        self._moments: Path | None = None
        self._moments_before = moments
        self._last: UpdateReport | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._discard(*self._staged)
        if isinstance(error, Exception) and await whole(self._gone):  # whatever it stumbled over: that is why
            raise NotFound("the user was forgotten meanwhile", param="user") from error

    async def learn(self, step: Step) -> Outcome:
        """Learn one turn; return what became of it."""
        turn, self._known[step.turn.turn_id] = step.turn, step.turn
        named = dict.fromkeys((*self.state.block, *self.state.replay))
        memory = [self._known[name] for name in named if name in self._known and name != turn.turn_id]
        folder = await whole(self._stage)
        moments = self._moments_before if self._moments is None else self._moments / MOMENTS
        kept = None if moments is None else str(moments)
        lesson = Lesson(turn, tuple(memory), self.state, kept, user_id=self._user.user_id)
        (report,) = await self._opened.trainer.run_update([lesson], [self._parent], [folder])
        self.outcomes[report.outcome.value] += 1
        if report.outcome is Outcome.APPLIED:
            await self._go_on(step.number, folder, report)
        else:
            await self._discard(folder)
        return report.outcome

    async def _go_on(self, number: int, folder: Path, report: UpdateReport) -> None:
        before = [path for path in (self._folder, self._moments) if path is not None]
        self._folder, self._moments, self._moments_before = folder, await whole(self._part, folder), None
        self._parent = await whole(unpublished, self._user.user_id, number, folder)
        self.state, self._last = report.state, report
        self.learnt.append(number)
        await self._discard(*before)

    def _stage(self) -> Path:
        with translated():
            self._staged.append(self._store.stage(self._user.user_id))
        return self._staged[-1]

    def _part(self, folder: Path) -> Path | None:
        """Take the moments out of ``folder``, as publishing does."""
        if not (folder / MOMENTS).exists():
            return None
        beside = self._stage()
        (folder / MOMENTS).rename(beside / MOMENTS)
        return beside

    async def publish(
        self,
        *,
        parent: int | None,
        lineage: Lineage,
        origin: str,
        metrics: Mapping[str, float],
        why: Mapping[str, Any] | None = None,
    ) -> Version:
        """Make the adapter the user's head in place of version ``parent``; at least one step has been applied.

        Args:
            lineage: what the adapter has learnt before the steps that were learnt here.

        Raises:
            Conflict: the head is not ``parent`` any more; nothing was changed.
            NotFound: the user was forgotten.
            StorageUnavailable: the version cannot be written.
        """
        return await whole(self._publish, parent, lineage, origin, metrics, why)

    def _publish(
        self,
        parent: int | None,
        lineage: Lineage,
        origin: str,
        metrics: Mapping[str, float],
        why: Mapping[str, Any] | None,
    ) -> Version:
        assert self._folder is not None and self._last is not None, "nothing was applied"
        if self._moments is not None:
            (self._moments / MOMENTS).rename(self._folder / MOMENTS)
        for number in self.learnt:
            lineage = lineage.and_then(number)
        with translated():
            return self._store.publish(
                self._folder,
                user_id=self._user.user_id,
                base_digest=self._opened.base_digest,
                parent=parent,
                epoch=self._user.epoch,
                update_id=None,
                state={**self.state.to_json(), KEY: lineage.to_json()},
                metrics={**self._last.metrics, **metrics},
                origin=origin,
                why=why,
            )

    def _gone(self) -> bool:
        with translated():
            return self._store.get_user(self._user.user_id) is None

    async def _discard(self, *folders: Path) -> None:
        for folder in folders:
            with contextlib.suppress(Exception):  # what stays behind is an orphan, and those are swept
                await whole(self._store.discard, folder)
