"""Finding recorded turns by what pairing knows of them, without reading their files."""

from sqlalchemy import ColumnElement, Select, func, select

from adapters_store.core import Core
from adapters_store.ids import checked_id
from adapters_store.schema import TurnRow, UpdateRow
from adapters_store.types import TurnRef

MAX_FOUND = 100


class Lookups(Core):
    def find_turns_by_prompt(self, user_id: str, prompt_key: str) -> list[TurnRef]:
        """Return the turns whose conversation before the reply has this key, newest first."""
        return self._find(_refs(user_id).where(TurnRow.prompt_key == prompt_key))

    def find_turns_by_prefix(self, user_id: str, prefix_key: str) -> list[TurnRef]:
        """Return the turns whose conversation with its reply has this key, newest first."""
        return self._find(_refs(user_id).where(TurnRow.prefix_key == prefix_key))

    def find_turns_by_reply(self, user_id: str, reply_key: str, since_s: float) -> list[TurnRef]:
        """Return the turns with this reply, recorded at or after ``since_s`` and without follow-up, newest first."""
        query = _refs(user_id).where(TurnRow.reply_key == reply_key, TurnRow.created_s >= since_s)
        return self._find(query.where(UpdateRow.update_id.is_(None)))

    def find_turns_by_request(self, user_id: str, request_id: str) -> list[TurnRef]:
        """Return the turns that answered one request: its choices, newest first."""
        return self._find(_refs(user_id).where(TurnRow.request_id == request_id))

    def newest_turns(self, user_id: str, limit: int, *, within_s: float) -> list[str]:
        """Return the last turn of each of the user's newest conversations, newest first.

        Args:
            limit: conversations.
            within_s: older turns do not count.
        """
        newest = func.max(TurnRow.created_s).label("newest_s")
        query = select(TurnRow.root_id, newest).where(TurnRow.user_id == checked_id("user_id", user_id))
        query = query.where(TurnRow.created_s >= self._clock() - within_s).group_by(TurnRow.root_id)
        last = query.order_by(newest.desc()).limit(limit).subquery()
        turns = select(TurnRow.turn_id).join(
            last, (TurnRow.root_id == last.c.root_id) & (TurnRow.created_s == last.c.newest_s)
        )
        with self._read() as session:
            return list(session.scalars(turns.order_by(TurnRow.created_s.desc())))

    def _find(self, query: Select[TurnRow, str]) -> list[TurnRef]:
        with self._read() as session:
            return [_ref(row, update_id) for row, update_id in session.execute(query)]


def same_turn() -> ColumnElement[bool]:
    """What joins a turn with the update that a follow-up to it has queued."""
    return (UpdateRow.user_id == TurnRow.user_id) & (UpdateRow.turn_id == TurnRow.turn_id)


def _refs(user_id: str) -> Select[TurnRow, str]:
    query = select(TurnRow, UpdateRow.update_id).outerjoin(UpdateRow, same_turn())
    query = query.where(TurnRow.user_id == checked_id("user_id", user_id))
    return query.order_by(TurnRow.created_s.desc()).limit(MAX_FOUND)


def _ref(row: TurnRow, update_id: str | None) -> TurnRef:
    return TurnRef(
        turn_id=row.turn_id,
        user_id=row.user_id,
        created_s=row.created_s,
        finish_reason=row.finish_reason,
        adapter_number=row.adapter_number,
        base_digest=row.base_digest,
        reply_chars=row.reply_chars,
        paired=update_id is not None,
        taught=row.update_id is not None,
        request_id=row.request_id,
    )
