"""Updates that have waited for too long: learning is shed before anybody learns from what was said long ago."""

from collections import Counter
from collections.abc import Mapping

from sqlalchemy import select
from sqlalchemy.orm import Session

from adapters_store.queueing import QUEUED
from adapters_store.schema import UpdateRow
from adapters_store.updates import Updates

SUPERSEDED, SKIPPED = "superseded", "skipped_budget"


class Deadlines(Updates):
    """Follow-ups that come faster than they can be learnt from end by themselves, the oldest first.

    Semantics: only what was queued while somebody could train expires. What lay there when the lease was taken, also by
    whoever let it lapse, or when a pause for want of space ended, is a backlog: nobody was late for it, so it is worked
    off.
    """

    def shed_updates(self, owner: str, within_s: float = 0.0) -> Mapping[str, int]:
        """Close the waiting updates that expire within the next ``within_s``; return how many, by outcome.

        An update is "superseded" where a newer one of its user waits and does not expire, else "skipped_budget". What
        is under way is left alone.

        Raises:
            LeaseLost: ``owner`` does not hold the learning lease.
        """
        if self._paused_reason() is not None:
            self._able_since = None
            return {}
        return self._write(lambda session: self._shed(session, owner, within_s))

    def _shed(self, session: Session, owner: str, within_s: float) -> Mapping[str, int]:
        fence, now = self._held_fence(session, owner), self._clock()
        if self._able_since is None or self._able_since[0] != fence:
            self._able_since = fence, now
        waiting = select(UpdateRow).where(UpdateRow.outcome == QUEUED, UpdateRow.fence.is_(None))
        late = waiting.where(UpdateRow.expires_s <= now + within_s, UpdateRow.created_s >= self._able_since[1])
        rows = session.scalars(late.order_by(UpdateRow.seq)).all()
        last = {row.user_id: row.seq for row in rows}
        users = {user for user, seq in last.items() if _has_newer(session, user, seq)}
        for row in rows:
            row.outcome, row.finished_s = SUPERSEDED if row.user_id in users else SKIPPED, now
        return Counter(row.outcome for row in rows)


def _has_newer(session: Session, user_id: str, seq: int) -> bool:
    newer = select(UpdateRow.seq).where(UpdateRow.user_id == user_id, UpdateRow.outcome == QUEUED)
    newer = newer.where(UpdateRow.fence.is_(None), UpdateRow.seq > seq)
    return session.scalars(newer.limit(1)).first() is not None
