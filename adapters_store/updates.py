"""The durable queue of follow-ups; at most one update per turn, for ever."""

import math
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Any

from sqlalchemy import Select, func, select, update
from sqlalchemy.orm import Session

from adapters_store.core import T, locked_user
from adapters_store.errors import InvalidValue, NotFound, StoreError, UpdateClosed
from adapters_store.heads import Heads
from adapters_store.ids import checked_id, short_text
from adapters_store.leases import Leases
from adapters_store.queueing import QUEUED, Queueing
from adapters_store.schema import TurnRow, UpdateRow
from adapters_store.types import ClaimedUpdate, Update

NOT_FINISHING = (QUEUED, "applied")  # "applied" is said by a publish only, in the same transaction as the version


class Updates(Queueing, Heads, Leases):
    """Starts are counted when they are claimed, before any work.

    ``attempts`` only grows. ``unfinished`` counts the starts of which nothing was heard again: a claim adds one, and a
    release (shutdown, lost race for the head) takes it back. So a process that dies leaves its mark by doing nothing,
    and a process that ends in good order leaves none. Whoever takes over the lease finds the claims of the holder
    before, and fails those with ``max_starts`` such marks.
    """

    def claim_updates(
        self, owner: str, limit: int, base_digest: str, exclude_users: Collection[str] = ()
    ) -> list[ClaimedUpdate]:
        """Take the oldest waiting update of up to ``limit`` users that have none under way.

        Nothing is handed out while learning is paused for want of space. What cannot be read is put back.

        Raises:
            LeaseLost: ``owner`` does not hold the learning lease.
            StorageUnavailable: none of what was taken could be read.
        """
        if self._paused_reason() is not None:
            return []
        claimed = self._write(lambda session: self._claim(session, owner, limit, exclude_users))
        ready: list[ClaimedUpdate] = []
        fault: StoreError | None = None
        for row, epoch in claimed:
            try:
                if (one := self._claimed(row, epoch, base_digest)) is not None:
                    ready.append(one)
            except StoreError as error:  # one user's file may be out of reach, and nobody else's
                fault = error
                with suppress(StoreError):  # one that cannot be put back keeps none of the others
                    self.release_update(row.update_id)
        if fault is not None and not ready:
            raise fault
        return ready

    def _claim(
        self, session: Session, owner: str, limit: int, exclude_users: Collection[str]
    ) -> list[tuple[UpdateRow, int]]:
        fence = self._held_fence(session, owner)
        self._recover(session, fence)
        claimed = []
        for update_id in session.scalars(_claimable(limit, exclude_users)).all():
            row = session.scalars(select(UpdateRow).where(UpdateRow.update_id == update_id)).one()
            try:
                user = locked_user(session, row.user_id)
            except NotFound:  # forgotten since the look, and the row with him
                continue
            row.fence, row.attempts, row.unfinished = fence, row.attempts + 1, row.unfinished + 1
            self._claims[update_id] = fence
            claimed.append((row, user.epoch))
        return claimed

    def _recover(self, session: Session, fence: int) -> None:
        """Close or put back what former holders of the lease had under way when they went."""
        left = select(UpdateRow).where(
            UpdateRow.outcome == QUEUED, UpdateRow.fence.is_not(None), UpdateRow.fence != fence
        )
        for row in session.scalars(left):
            row.fence = None
            if row.unfinished >= self._limits.max_starts:
                row.outcome, row.finished_s = "failed", self._clock()
        session.flush()

    def _claimed(self, row: UpdateRow, epoch: int, base_digest: str) -> ClaimedUpdate | None:
        text = self._follow_up(row.user_id, row.update_id)
        if text is None:  # retention was faster than learning
            self.finish_update(row.update_id, "failed")
            return None
        head = self.head(row.user_id, base_digest)
        return ClaimedUpdate(row.update_id, row.user_id, row.turn_id, row.request_id, text, row.attempts, epoch, head)

    def release_update(self, update_id: str) -> None:
        """Put a claimed update back in the queue in good order; one that has its final outcome is left alone."""

        def work(session: Session, fence: int | None) -> None:
            query = update(UpdateRow).where(UpdateRow.update_id == update_id, UpdateRow.outcome == QUEUED)
            query = query.where(UpdateRow.fence.is_not(None), UpdateRow.fence == fence)
            session.execute(query.values(fence=None, unfinished=UpdateRow.unfinished - 1))

        self._end_claim(update_id, work)

    def finish_update(self, update_id: str, outcome: str, metrics: Mapping[str, float] | None = None) -> str:
        """Give an update its final outcome; return the one that it has now: the first one stays.

        Raises:
            NotFound: no such update (any more).
        """
        if outcome in NOT_FINISHING:
            raise InvalidValue("outcome", outcome, "a final one; 'applied' is set by publish")
        short_text("outcome", outcome, 64)

        def work(session: Session, fence: int | None) -> str | None:
            with suppress(UpdateClosed):
                close_update(session, update_id, fence, outcome, self._clock(), metrics or {})
            return session.scalars(select(UpdateRow.outcome).where(UpdateRow.update_id == update_id)).one_or_none()

        if (final := self._end_claim(update_id, work)) is None:
            raise NotFound(f"no update {update_id!r}")
        return final

    def _end_claim(self, update_id: str, work: Callable[[Session, int | None], T]) -> T:
        """Write the end of a claim and forget its fence; where the write fails it is known again, for another try.

        It is forgotten inside the transaction: right after it this process may have claimed the update anew.
        """
        fence = self._claims.get(update_id)

        def end(session: Session) -> T:
            result = work(session, fence)
            self._claims.pop(update_id, None)
            return result

        try:
            return self._write(end)
        except BaseException:
            if fence is not None:
                self._claims.setdefault(update_id, fence)
            raise

    def updates(
        self, user_id: str, limit: int = 100, *, turn_id: str | None = None, outcome: str | None = None
    ) -> list[Update]:
        """Return the user's updates, newest first; with ``turn_id`` or ``outcome`` only those with that one."""
        query = select(UpdateRow).where(UpdateRow.user_id == checked_id("user_id", user_id))
        if turn_id is not None:
            query = query.where(UpdateRow.turn_id == turn_id)
        if outcome is not None:
            query = query.where(UpdateRow.outcome == outcome)
        with self._read() as session:
            return [_update(row) for row in session.scalars(query.order_by(UpdateRow.seq.desc()).limit(limit))]

    def update(self, update_id: str) -> Update:
        with self._read() as session:
            row = session.scalars(select(UpdateRow).where(UpdateRow.update_id == update_id)).one_or_none()
        if row is None:
            raise NotFound(f"no update {update_id!r}")
        return _update(row)

    def outcome(self, request_id: str) -> str | None:
        """Return what became of the follow-up that this chat request carried; None for an unknown request."""
        queued = select(UpdateRow.outcome).where(UpdateRow.request_id == request_id).limit(1)
        recorded = select(TurnRow.outcome).where(TurnRow.request_id == request_id).limit(1)
        with self._read() as session:
            return session.scalars(queued).first() or session.scalars(recorded).first()

    def _pending_updates(self) -> int:
        with self._read() as session:
            return session.scalar(select(func.count()).select_from(UpdateRow).where(UpdateRow.outcome == QUEUED)) or 0


def close_update(
    session: Session,
    update_id: str,
    fence: int | None,
    outcome: str,
    now_s: float,
    metrics: Mapping[str, float],
    version: int | None = None,
) -> None:
    """Move an update from queued to its final outcome, once, under the fence it was claimed with.

    Raises:
        UpdateClosed: it is final already, or somebody else has claimed it.
    """
    query = update(UpdateRow).where(UpdateRow.update_id == update_id, UpdateRow.outcome == QUEUED)
    query = query.where(UpdateRow.fence.is_not_distinct_from(fence))
    values = {"outcome": outcome, "finished_s": now_s, "metrics": plain_metrics(metrics), "version": version}
    if session.execute(query.values(**values, fence=None)).rowcount != 1:  # pyright: ignore[reportAttributeAccessIssue]
        raise UpdateClosed(f"update {update_id} has its outcome already, or another process runs it")


def plain_metrics(metrics: Mapping[str, float]) -> dict[str, Any]:
    """Return the finite numbers by name, at most 64; JSON has no others."""
    numbers = all(isinstance(value, int | float) for value in metrics.values())
    if len(metrics) > 64 or not numbers:
        raise InvalidValue("metrics", dict(metrics), "at most 64 numbers")
    return {short_text("metric", name, 64): value for name, value in metrics.items() if math.isfinite(value)}


def _claimable(limit: int, exclude_users: Collection[str]) -> Select[str]:
    """Select each user's oldest waiting update, users without one under way, oldest first."""
    running = select(UpdateRow.user_id).where(UpdateRow.outcome == QUEUED, UpdateRow.fence.is_not(None))
    oldest = select(func.min(UpdateRow.seq)).where(UpdateRow.outcome == QUEUED, UpdateRow.fence.is_(None))
    oldest = oldest.where(UpdateRow.user_id.not_in(running), UpdateRow.user_id.not_in(tuple(exclude_users)))
    oldest = oldest.group_by(UpdateRow.user_id)
    return select(UpdateRow.update_id).where(UpdateRow.seq.in_(oldest)).order_by(UpdateRow.seq).limit(limit)


def _update(row: UpdateRow) -> Update:
    return Update(
        update_id=row.update_id,
        user_id=row.user_id,
        request_id=row.request_id,
        turn_id=row.turn_id,
        outcome=row.outcome,
        version=row.version,
        created_s=row.created_s,
        finished_s=row.finished_s,
        attempts=row.attempts,
        metrics=row.metrics,
    )
