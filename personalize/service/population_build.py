"""The population adapter made from logs that the operator names, and from nothing else.

Every follow-up of a log is one lesson for the same adapter, which begins with the base; gate, steps and guards are
those of the queue. A conversation is told to the teacher by itself: what one person asked for is never mixed with what
another did. Nothing of the logs is kept but counts, digests and hashes, and only the last folder is published: a build
is whole or was never there. Source: arXiv 2603.12273, offline surrogate.
"""

import asyncio
import contextlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from adapters_store import Store
from adapters_store.errors import Erased, HeadMoved, StoreError
from adapters_store.folder import MOMENTS
from adapters_store.populations import MAX_SOURCES
from adapters_store.sources import LogSource
from adapters_store.types import Version
from personalize.backends import Opened
from personalize.config import ServiceSettings
from personalize.errors import Conflict, InvalidParameter, StorageUnavailable
from personalize.logs import LogFile, read_log
from personalize.service.population_talks import Talk, Talks
from personalize.service.population_tally import Tally
from personalize.types import (
    Experience,
    LearningState,
    Lesson,
    Outcome,
    PopulationReport,
    ReviewRequest,
    UpdateReport,
)
from personalize.updates.storage import translated, unpublished
from personalize.updates.threads import whole

LOST = {Erased: "somebody in these logs was forgotten meanwhile", HeadMoved: "another build ended first"}
Progress = Callable[[int, int], None]
"""Told how many bytes of the logs were read, and how many follow-ups have moved the adapter."""


@dataclass(slots=True)
class Growth:
    """The adapter as far as it is trained; ``folder`` is staged, and None until something was learnt."""

    folder: Path | None = None
    last: UpdateReport | None = None
    num_steps: int = 0


class PopulationBuild:
    """One build.

    Args:
        user: whose the conversations are that name nobody.
        without: people whose conversations are left out.
        progress: see ``Progress``; called on the event loop.
    """

    def __init__(
        self,
        store: Store,
        opened: Opened,
        settings: ServiceSettings,
        *,
        user: str | None = None,
        without: Collection[str] = (),
        dry_run: bool = False,
        progress: Progress | None = None,
    ):
        self._store = store
        self._opened = opened
        self._settings = settings
        self._tally = Tally()
        self._talks = Talks(store, opened, settings.learning, self._tally, user, without)
        self._dry_run = dry_run
        self._progress = progress or (lambda num_bytes, num_lessons: None)

    async def run(self, paths: Sequence[Path]) -> PopulationReport:
        """See ``Personalizer.build_population``."""
        logs = await asyncio.to_thread(_opened_logs, paths)
        parent = await asyncio.to_thread(self._parent)
        tally, growth = self._tally, Growth()
        try:
            await self._read(logs, growth)
            if await asyncio.to_thread(_changed, logs):
                raise Conflict("a log has changed while it was read; nothing was published")
            sources = tally.sources([(log.digest, log.num_bytes) for log in logs])
            if growth.folder is None:
                return tally.report(sources)
            if (breach := await self._breach(growth)) is not None:
                return replace(tally.report(sources), breach=breach)
            version = await whole(self._publish, growth, parent, sources)
        finally:
            await self._discard(growth.folder)
        return replace(tally.report(sources), version=version.number)

    async def _read(self, logs: Sequence[LogFile], growth: Growth) -> None:
        before_bytes = 0
        for source, log in enumerate(logs):
            lines = read_log(log.path)
            while (found := await asyncio.to_thread(next, lines, None)) is not None:
                talk = await asyncio.to_thread(self._talks.of, source, found)
                if talk is not None:
                    await self._teach(talk, growth)
                self._progress(before_bytes + found.end_bytes, growth.num_steps)
            before_bytes += log.num_bytes

    # --- learning it -------------------------------------------------------------------------------------------------

    async def _teach(self, talk: Talk, growth: Growth) -> None:
        """Learn a conversation, each follow-up with what the same person asked for before in it."""
        state, known = LearningState(), dict[str, Experience]()
        outcomes = []
        for one in talk.plan:
            if isinstance(one, Outcome):
                outcomes.append(one)
                continue
            if self._dry_run:
                outcomes.append(Outcome.QUEUED)
                continue
            known[one.turn_id] = one
            named = dict.fromkeys((*state.block, *state.replay))
            memory = tuple(known[turn_id] for turn_id in named if turn_id in known and turn_id != one.turn_id)
            report = await self._step(Lesson(one, memory, state), growth)
            state = report.state
            outcomes.append(report.outcome)
        self._tally.count(talk.source, talk.person, outcomes, is_user=talk.is_user)

    async def _step(self, lesson: Lesson, growth: Growth) -> UpdateReport:
        with translated():
            owner = await whole(self._store.ensure_population_owner)
            folder = await whole(self._store.stage, owner.user_id)
        discarded: Path | None = folder
        try:
            parent = None
            if growth.folder is not None:
                parent = await whole(unpublished, owner.user_id, growth.num_steps, growth.folder)
            (report,) = await self._opened.trainer.run_update([lesson], [parent], [folder])
            if report.outcome is Outcome.APPLIED:
                discarded, growth.folder, growth.last = growth.folder, folder, report
                growth.num_steps += 1
        finally:
            await self._discard(discarded)
        return report

    async def _breach(self, growth: Growth) -> str | None:
        """Judge the adapter by what it says, before anybody is served with it."""
        if not self._settings.review_every or growth.folder is None:
            return None
        owner = await whole(self._store.ensure_population_owner)
        staged = await whole(unpublished, owner.user_id, max(1, growth.num_steps), growth.folder)
        review = await self._opened.trainer.review(ReviewRequest(staged))
        return None if review is None else review.breach

    # --- the end -----------------------------------------------------------------------------------------------------

    def _parent(self) -> int | None:
        with translated():
            if (reason := self._store.status().learning_paused_reason) is not None and not self._dry_run:
                raise StorageUnavailable(f"nothing can be learnt now: {reason}")
            head = self._store.population_head(self._opened.base_digest)
        return None if head is None else head.number

    def _publish(self, growth: Growth, parent: int | None, sources: Sequence[LogSource]) -> Version:
        assert growth.folder is not None and growth.last is not None
        (growth.folder / MOMENTS).unlink(missing_ok=True)  # whoever begins with this one begins without any
        try:
            with translated():
                return self._store.publish_population(
                    growth.folder,
                    base_digest=self._opened.base_digest,
                    parent=parent,
                    sources=sources,
                    people=self._tally.people(),
                    metrics={**growth.last.metrics, "num_lessons": growth.num_steps},
                )
        except Exception as error:
            for kind, why in LOST.items():
                if isinstance(error.__cause__, kind):
                    raise Conflict(f"{why}; nothing was published") from error
            raise

    async def _discard(self, folder: Path | None) -> None:
        if folder is not None:
            with contextlib.suppress(StoreError, OSError):  # what stays behind is an orphan, and those are swept
                await whole(self._store.discard, folder)


def _opened_logs(paths: Sequence[Path]) -> list[LogFile]:
    if not 0 < len(paths) <= MAX_SOURCES:
        raise InvalidParameter("logs", len(paths), f"1 to {MAX_SOURCES} files")
    logs = [LogFile.of(Path(path)) for path in paths]
    if len({log.digest for log in logs}) < len(logs):
        raise InvalidParameter("logs", [str(log.path) for log in logs], "each log once")
    return logs


def _changed(logs: Sequence[LogFile]) -> bool:
    return any(LogFile.of(log.path) != log for log in logs)
