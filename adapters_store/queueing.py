"""Queueing a follow-up for the turn it answers: once per turn, and for one choice of a request."""

from sqlalchemy import Select, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from adapters_store.core import locked_user
from adapters_store.errors import InvalidValue, NotFound
from adapters_store.ids import checked_id, new_id, short_text
from adapters_store.schema import TurnRow, UpdateRow
from adapters_store.turns import Turns, follow_up_key
from adapters_store.types import QueuedUpdate

QUEUED = "queued"
MAX_FOLLOW_UP_BYTES = 4 * 2**20


class Queueing(Turns):
    def queue_follow_up(
        self,
        user_id: str,
        turn_id: str,
        request_id: str,
        text: str,
        *,
        max_queued: int = 8,
        max_wait_s: float | None = None,
    ) -> QueuedUpdate:
        """Queue a follow-up for the turn it answers.

        A turn that ever had one, or another choice of whose request had one, gives "skipped_duplicate".

        Args:
            max_queued: waiting follow-ups of the user; beyond it the oldest are superseded.
            max_wait_s: how long this one may wait before ``shed_updates`` ends it; None: for ever.

        Raises:
            NotFound: no such user, or no such turn of this user.
            StoreFull: no space left; nothing was queued.
        """
        short_text("request_id", request_id, 100)
        data = text.encode("utf-8", "surrogatepass")
        if not text or len(data) > MAX_FOLLOW_UP_BYTES or max_queued < 1:
            raise InvalidValue("text", text, f"1 to {MAX_FOLLOW_UP_BYTES} bytes, and max_queued from 1")
        if existing := self._update_of(user_id, turn_id):
            return QueuedUpdate(existing, "skipped_duplicate")
        if max_wait_s is not None and not max_wait_s > 0:
            raise InvalidValue("max_wait_s", max_wait_s, "above 0, or None")
        update_id = new_id()
        key = follow_up_key(user_id, update_id)
        self._blobs.write(key, data)
        try:
            queued = self._write(
                lambda session: self._queue(session, user_id, turn_id, request_id, update_id, max_queued, max_wait_s)
            )
        except IntegrityError:  # another process was first
            queued = False
        except (NotFound, InvalidValue):  # after any other error the row may be there, and sweeping knows
            self._blobs.delete(key)
            raise
        if queued:
            return QueuedUpdate(update_id, QUEUED)
        self._blobs.delete(key)
        existing = self._update_of(user_id, turn_id)
        if existing is None:
            raise NotFound(f"no turn {turn_id!r} of this user")
        return QueuedUpdate(existing, "skipped_duplicate")

    def _update_of(self, user_id: str, turn_id: str) -> str | None:
        with self._read() as session:
            return session.scalars(_of_request(user_id, turn_id)).first()

    def _queue(
        self,
        session: Session,
        user_id: str,
        turn_id: str,
        request_id: str,
        update_id: str,
        max_queued: int,
        max_wait_s: float | None,
    ) -> bool:
        locked_user(session, user_id)
        if session.scalars(_of_request(user_id, turn_id)).first() is not None:
            return False
        turn = session.get(TurnRow, checked_id("turn_id", turn_id))
        if turn is None or turn.user_id != user_id:
            raise NotFound(f"no turn {turn_id!r} of this user")
        now = self._clock()
        session.add(
            UpdateRow(
                update_id=update_id,
                user_id=user_id,
                turn_id=turn_id,
                request_id=request_id,
                created_s=now,
                expires_s=None if max_wait_s is None else now + max_wait_s,
            )
        )
        session.flush()
        waiting = session.scalars(_waiting(user_id)).all()
        for row in waiting[: max(0, len(waiting) - max_queued)]:
            row.outcome, row.finished_s = "superseded", now
        return True


def _of_request(user_id: str, turn_id: str) -> Select[str]:
    """The update of this turn, which may be gone, or of another choice of the same request: one of them is learnt."""
    request = select(TurnRow.request_id).where(TurnRow.user_id == user_id, TurnRow.turn_id == turn_id)
    choices = select(TurnRow.turn_id).where(TurnRow.user_id == user_id, TurnRow.request_id == request.scalar_subquery())
    either = or_(UpdateRow.turn_id == turn_id, UpdateRow.turn_id.in_(choices))
    return select(UpdateRow.update_id).where(UpdateRow.user_id == user_id, either)


def _waiting(user_id: str) -> Select[UpdateRow]:
    query = select(UpdateRow).where(
        UpdateRow.user_id == user_id, UpdateRow.outcome == QUEUED, UpdateRow.fence.is_(None)
    )
    return query.order_by(UpdateRow.seq)
