"""One batch of claimed updates, from lesson to published version."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from adapters_store import Store
from adapters_store.errors import (
    Erased,
    HeadMoved,
    NotFound,
    StorageUnavailable,
    StoreError,
    StoreFull,
    UpdateClosed,
)
from adapters_store.types import BEGAN_WITH, ClaimedUpdate, Version
from personalize.config import Learning
from personalize.rendering.recorded import Reteller
from personalize.types import AdapterRef, Lesson, Outcome, Review, ReviewRequest, UpdateReport
from personalize.updates.conversations import warm_conversations
from personalize.updates.lessons import LessonBase, build_lesson, refusal
from personalize.updates.lineage import KEY, lineage_of
from personalize.updates.storage import reference
from personalize.updates.threads import whole

MAX_RACES = 3
MAX_ATTEMPTS = 3


class Trainer(Protocol):
    """What updates need of a backend; see ``backends.Trainer``."""

    async def run_update(
        self, lessons: Sequence[Lesson], parents: Sequence[AdapterRef | None], out_dirs: Sequence[Path]
    ) -> tuple[UpdateReport, ...]: ...

    async def publish(self, ref: AdapterRef, tensors: Any) -> None: ...

    async def prefill_again(self, ref: AdapterRef, conversations: Sequence[Sequence[int]]) -> None: ...

    async def review(self, request: ReviewRequest) -> Review | None: ...


@dataclass(frozen=True, slots=True)
class School:
    """What every batch of a process shares.

    Args:
        learning: the operator's setting.
        forgotten: ids of users whose versions must not be handed to the engine any more; grows while it is in use.
        renderer: tells remembered turns of another base anew; None leaves them out.
        population: who has never had a head begins with the population adapter.
    """

    store: Store
    trainer: Trainer
    base_digest: str
    learning: Learning
    forgotten: set[str] = field(default_factory=set)
    renderer: Reteller | None = None
    population: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """One update under way: what is learnt, from which parent, into which folder.

    Attributes:
        parent: the head that this one is to follow; None for a user's first version.
        beginning: whose weights the training begins with: the parent's, or the population adapter's; None for the base.
    """

    update: ClaimedUpdate
    parent: Version | None
    beginning: Version | None
    lesson: Lesson
    folder: Path
    races: int = 0

    @property
    def line(self) -> dict[str, float]:
        """Which version of the population adapter the user's line began with, if any; every version says it anew."""
        if self.parent is None:
            return {} if self.beginning is None else {BEGAN_WITH: self.beginning.number}
        return {BEGAN_WITH: began} if (began := self.parent.metrics.get(BEGAN_WITH)) is not None else {}


class Batch:
    """Updates of different users that are trained in one pass.

    Semantics: an update leaves ``open`` with its final outcome; what is still in there when ``run`` ends, however it
    ends, has gone back into the queue. No fault of one update reaches another's.

    Args:
        on_close: told (update, its outcome) of every update that has ended; None for one that ended elsewhere.
        on_fault: told of every exception.
    """

    def __init__(
        self,
        school: School,
        claims: Sequence[ClaimedUpdate],
        on_close: Callable[[ClaimedUpdate, Outcome | None], None],
        on_fault: Callable[[Exception], None],
    ):
        self.open = {claim.update_id: claim for claim in claims}
        self._school = school
        self._store = school.store
        self._folders: list[Path] = []
        self._on_close = on_close
        self._on_fault = on_fault

    async def run(self) -> None:
        try:
            begun = [await self._begin(claim) for claim in list(self.open.values())]
            await self._train([job for job in begun if job is not None])
        finally:
            await self._discard(self._folders)
            await self.give_back()

    async def give_back(self) -> None:
        """Put what has not ended back into the queue.

        Raises:
            StorageUnavailable: the store cannot write now; to be called again later.
        """
        for claim in list(self.open.values()):
            with contextlib.suppress(NotFound, UpdateClosed, Erased):
                await whole(self._store.release_update, claim.update_id)
            self._close(claim, None)

    # --- training ------------------------------------------------------------------------------------------------

    async def _begin(self, claim: ClaimedUpdate, parent: Version | None = None, races: int = 0) -> Job | None:
        """Return the job for a claim, or None where it needs no training or cannot have it."""
        try:
            found = await whole(self._job, claim, parent if races else claim.head, races)
        except Exception as error:
            await self._stumble(claim, error)
            return None
        if isinstance(found, Job):
            return found
        await self._finish(claim, found)
        return None

    def _job(self, claim: ClaimedUpdate, parent: Version | None, races: int) -> Job | Outcome:
        outcome = Outcome(self._store.update(claim.update_id).outcome)
        if outcome is not Outcome.QUEUED:  # a rollback has said the last word
            return outcome
        refused = refusal(self._store.get_user(claim.user_id), self._school.learning)
        if refused is not None:
            return refused
        base = LessonBase(self._school.base_digest, self._school.renderer)
        lesson = build_lesson(self._store, claim, parent, base)
        if isinstance(lesson, Outcome):
            return lesson
        beginning = parent or self._population(claim)
        if beginning is not None and (moments := self._store.moments_path(beginning)) is not None:
            lesson = replace(lesson, moments=str(moments))
        return Job(claim, parent, beginning, lesson, self._stage(claim.user_id), races)

    def _population(self, claim: ClaimedUpdate) -> Version | None:
        school = self._school
        return self._store.population_for(claim.user_id, school.base_digest) if school.population else None

    def _stage(self, user_id: str) -> Path:
        self._folders.append(self._store.stage(user_id))
        return self._folders[-1]

    async def _train(self, jobs: list[Job]) -> None:
        if not jobs:
            return
        try:
            reports = await self._reports(jobs)
        except Exception as error:
            await self._alone(jobs, error)
            return
        for job, report in zip(jobs, reports, strict=True):
            await self._conclude(job, report)

    async def _reports(self, jobs: list[Job]) -> Sequence[UpdateReport]:
        parents = [await whole(reference, self._store, job.beginning) for job in jobs]
        lessons, folders = [job.lesson for job in jobs], [job.folder for job in jobs]
        return await self._school.trainer.run_update(lessons, parents, folders)

    async def _alone(self, jobs: list[Job], error: Exception) -> None:
        """After a fault of a batch try every job by itself: only the one at fault may suffer."""
        await self._discard([job.folder for job in jobs])
        if len(jobs) == 1:
            await self._stumble(jobs[0].update, error)
            return
        self._on_fault(error)
        for job in jobs:
            again = await self._begin(job.update, job.parent, job.races)
            await self._train([again] if again else [])

    async def _again(self, job: Job) -> None:
        """The head has moved: train from the new one, at most ``MAX_RACES`` times."""
        if job.races >= MAX_RACES:
            await self._finish(job.update, Outcome.FAILED)
            return
        head = await whole(self._store.head, job.update.user_id, self._school.base_digest)
        again = await self._begin(job.update, head, job.races + 1)
        await self._train([again] if again else [])

    # --- the end of one update -----------------------------------------------------------------------------------

    async def _conclude(self, job: Job, report: UpdateReport) -> None:
        try:
            if report.outcome is Outcome.APPLIED:
                await self._publish(job, report)
            else:
                await self._finish(job.update, report.outcome, report)
        except UpdateClosed:  # a rollback, or whoever took the lease over: what it said stands
            await self._finish(job.update, Outcome.CANCELLED_ROLLBACK)
        except HeadMoved:
            await self._again(job)
        except Erased:
            await self._finish(job.update, Outcome.CANCELLED_ERASURE)
        except Exception as error:
            if _is_outage(error):
                raise
            await self._stumble(job.update, error)
        finally:
            await self._discard([job.folder])

    async def _publish(self, job: Job, report: UpdateReport) -> None:
        lineage = await whole(lineage_of, self._store, job.parent)
        version = await whole(
            self._store.publish,
            job.folder,
            user_id=job.update.user_id,
            base_digest=self._school.base_digest,
            parent=job.parent.number if job.parent else None,
            epoch=job.update.epoch,
            update_id=job.update.update_id,
            state={**report.state.to_json(), KEY: lineage.to_json()},
            metrics={**report.metrics, **job.line},
        )
        await self._hand_over(version, report.tensors)
        self._close(job.update, Outcome.APPLIED)

    async def _hand_over(self, version: Version, tensors: Any) -> None:
        """Warm the engine. The version is committed: a fault here only means that its first use reads the disk."""
        if version.user_id in self._school.forgotten:
            return
        try:
            ref = await whole(reference, self._store, version)
            assert ref is not None
            await self._school.trainer.publish(ref, tensors)
            warm = await whole(warm_conversations, self._store, version)
            await self._school.trainer.prefill_again(ref, warm)
        except Exception as error:
            self._on_fault(error)

    async def _stumble(self, claim: ClaimedUpdate, error: Exception) -> None:
        """After a fault: back into the queue, unless it was the last attempt or can never succeed."""
        self._on_fault(error)
        if await whole(self._store.get_user, claim.user_id) is None:  # whatever it stumbled over: that is why
            await self._finish(claim, Outcome.CANCELLED_ERASURE)
        elif isinstance(error, NotFound) or claim.attempts >= MAX_ATTEMPTS:
            full = isinstance(error, StoreFull)
            await self._finish(claim, Outcome.SKIPPED_BUDGET if full else Outcome.FAILED)

    async def _finish(self, claim: ClaimedUpdate, outcome: Outcome, report: UpdateReport | None = None) -> None:
        """Give the update its final outcome, unless it has one."""
        metrics = dict(report.metrics) if report else {}
        try:
            final = await whole(self._store.finish_update, claim.update_id, outcome.value, metrics)
        except NotFound:  # forgotten meanwhile, and its row with it
            final = Outcome.CANCELLED_ERASURE
        self._close(claim, None if final == Outcome.QUEUED else Outcome(final))

    def _close(self, claim: ClaimedUpdate, outcome: Outcome | None) -> None:
        if self.open.pop(claim.update_id, None) is not None:
            self._on_close(claim, outcome)

    async def _discard(self, folders: Sequence[Path]) -> None:
        for folder in folders:
            with contextlib.suppress(StoreError, OSError):  # what stays behind is an orphan, and those are swept
                await whole(self._store.discard, folder)


def _is_outage(error: Exception) -> bool:
    """Whether the database refuses to work, which no update is to blame for; a disk may refuse one user's files."""
    own = isinstance(error, StoreFull) or isinstance(error.__cause__, OSError)
    return isinstance(error, StorageUnavailable) and not own
