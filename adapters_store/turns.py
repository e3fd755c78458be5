"""Recorded turns: a row to find them by, a file with their text and token ids."""

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from adapters_store.core import locked_user
from adapters_store.errors import InvalidValue, NotFound, QuotaExceeded
from adapters_store.ids import checked_id, new_id, short_text
from adapters_store.lookups import Lookups, same_turn
from adapters_store.schema import TurnRow, UpdateRow, UserRow
from adapters_store.turn_files import EMPTY, Conversation, decode, encode, grow
from adapters_store.types import NewTurn, StoredTurn


class Turns(Lookups):
    def record_turn(self, turn: NewTurn) -> str:
        """Store one served reply durably; return its turn id. A turn whose own id is known already is left as it is.

        A parent whose data is gone only costs space: the turn is then stored whole. Beyond the user's quota the
        user's oldest conversations go, at last the earlier part of this one.

        Raises:
            NotFound: no such user (any more).
            StoreFull: no space left; nothing was recorded.
        """
        _check(turn)
        turn_id = turn.turn_id or new_id()
        if turn.turn_id is not None and self._has_turn(turn.user_id, turn_id):
            return turn_id
        parent_id, parent = self._parent(turn)
        while True:
            data = encode(turn, parent_id, parent)
            if len(data) > self._limits.max_turn_bytes:
                raise QuotaExceeded(f"a turn of {len(data)} bytes; allowed: up to {self._limits.max_turn_bytes}")
            if (turn_bytes := self._store(turn, turn_id, parent_id, data)) is not None:
                break
            parent_id, parent = None, EMPTY  # retention took the parent in the meantime
        if turn_bytes > self._limits.max_turn_bytes_per_user:
            self._drop_conversations(turn.user_id, turn_bytes - self._limits.max_turn_bytes_per_user, spare=turn_id)
        return turn_id

    def _has_turn(self, user_id: str, turn_id: str) -> bool:
        with self._read() as session:
            row = session.get(TurnRow, turn_id)
        if row is not None and row.user_id != user_id:
            raise InvalidValue("turn_id", turn_id, "an id that no other user's turn has")
        return row is not None

    def _parent(self, turn: NewTurn) -> tuple[str | None, Conversation]:
        if turn.parent_turn_id is None:
            return None, EMPTY
        with self._read() as session:
            row = session.get(TurnRow, turn.parent_turn_id)
            user = session.get(UserRow, turn.user_id)
        if row is None or user is None or row.user_id != turn.user_id:
            return None, EMPTY
        if user.turn_bytes >= self._limits.max_turn_bytes_per_user:  # begin anew, so that what came before can go
            return None, EMPTY
        try:
            return row.turn_id, self._conversation(row.user_id, row.turn_id)
        except NotFound:
            return None, EMPTY

    def _store(self, turn: NewTurn, turn_id: str, parent_id: str | None, data: bytes) -> int | None:
        """Write file and row; return the user's bytes of turns, None if the parent's row is gone."""
        key = turn_key(turn.user_id, turn_id)
        self._blobs.write(key, data)

        def work(session: Session) -> int | None:
            user = locked_user(session, turn.user_id)
            if turn.turn_id is not None and session.get(TurnRow, turn_id) is not None:
                return user.turn_bytes  # another process was first, with the same content
            parent = session.get(TurnRow, parent_id) if parent_id else None
            if parent_id and parent is None:
                return None
            if turn.turn_id is not None:
                self._keep_file(key, data)
            root_id = parent.root_id if parent else turn_id
            session.add(_row(turn, turn_id, root_id, len(data), self._clock()))
            user.num_turns += 1
            user.turn_bytes += len(data)
            return user.turn_bytes

        try:
            stored = self._write(work)
        except NotFound:  # the user is gone; after any other error the row may be there, and sweeping knows
            self._blobs.delete(key)
            raise
        if stored is None and turn.turn_id is None:  # the file of an id that the caller made may be another process's
            self._blobs.delete(key)
        return stored

    def _keep_file(self, key: str, data: bytes) -> None:
        """Write the file once more if it was removed since: the old one of the same id was an orphan till now."""
        try:
            self._blobs.read(key)
        except NotFound:
            self._blobs.write(key, data)

    def load_turn(self, turn_id: str) -> StoredTurn:
        """Return a turn in full, with its follow-up where one was queued.

        Raises:
            NotFound: no such turn, or its data or a parent's data is gone.
        """
        query = select(TurnRow, UpdateRow.update_id).outerjoin(UpdateRow, same_turn())
        with self._read() as session:
            found = session.execute(query.where(TurnRow.turn_id == checked_id("turn_id", turn_id))).one_or_none()
        if found is None:
            raise NotFound(f"no turn {turn_id!r}")
        row, update_id = found
        conversation = self._conversation(row.user_id, turn_id)
        return _stored(row, conversation, self._follow_up(row.user_id, update_id) if update_id else None)

    def _conversation(self, user_id: str, turn_id: str) -> Conversation:
        """Follow the chain of parents to its beginning and put the turn together."""
        files, wanted = [], turn_id
        while wanted is not None:
            files.append(decode(self._blobs.read(turn_key(user_id, wanted))))
            wanted = files[-1]["parent"]
        conversation = EMPTY
        for file in reversed(files):
            conversation = grow(conversation, file)
        return conversation

    def _follow_up(self, user_id: str, update_id: str) -> str | None:
        try:
            return self._blobs.read(follow_up_key(user_id, update_id)).decode("utf-8", "surrogatepass")
        except NotFound:
            return None

    def _drop_conversations(self, user_id: str, num_bytes: int, spare: str) -> None:
        """Remove the user's oldest conversations until ``num_bytes`` are freed; never the one of turn ``spare``."""
        for root_id in self._oldest_conversations(user_id, spare):
            if num_bytes <= 0:
                return
            num_bytes -= self._drop_conversation(user_id, root_id)[1]

    def _oldest_conversations(self, user_id: str, spare: str) -> list[str]:
        kept = select(TurnRow.root_id).where(TurnRow.turn_id == spare).scalar_subquery()
        query = select(TurnRow.root_id).where(TurnRow.user_id == user_id, TurnRow.root_id != kept)
        with self._read() as session:
            return list(session.scalars(query.group_by(TurnRow.root_id).order_by(func.max(TurnRow.created_s))))

    def _drop_conversation(self, user_id: str, root_id: str, before_s: float | None = None) -> tuple[int, int]:
        """Remove a conversation's rows, then its files; return turns and bytes. Its updates stay, so none trains again.

        With ``before_s`` it stays if a turn was added since.
        """

        def work(session: Session) -> list[tuple[str, int, str]]:
            user = locked_user(session, user_id)
            query = select(TurnRow.turn_id, TurnRow.num_bytes, UpdateRow.update_id).outerjoin(UpdateRow, same_turn())
            mine = (TurnRow.user_id == user_id, TurnRow.root_id == root_id)
            if (
                before_s is not None
                and (session.scalar(select(func.max(TurnRow.created_s)).where(*mine)) or 0) >= before_s
            ):
                return []
            rows = [(turn_id, size, update_id) for turn_id, size, update_id in session.execute(query.where(*mine))]
            session.execute(delete(TurnRow).where(*mine))
            user.num_turns -= len(rows)
            user.turn_bytes -= sum(size for _, size, _ in rows)
            return rows

        rows = self._write(work)
        for turn_id, _, update_id in rows:
            self._delete_turn_file(user_id, turn_id)
            if update_id:
                self._blobs.delete(follow_up_key(user_id, update_id))
        return len(rows), sum(size for _, size, _ in rows)

    def _delete_turn_file(self, user_id: str, turn_id: str) -> int | None:
        """Delete the file of a turn without a row; return its bytes, None where it has a row again, and so stays.

        An id that the caller made may be recorded once more at any moment. The user's lock is held from the look to the
        end, so that no row comes in between.
        """

        def work(session: Session) -> int | None:
            session.get(UserRow, user_id, with_for_update=True)  # of a user who is gone nothing is recorded
            row = session.get(TurnRow, turn_id)
            named = row is not None and row.user_id == user_id
            return None if named else self._blobs.delete(turn_key(user_id, turn_id))

        return self._write(work)


def turn_key(user_id: str, turn_id: str) -> str:
    return f"users/{checked_id('user_id', user_id)}/turns/{checked_id('turn_id', turn_id)}.json"


def follow_up_key(user_id: str, update_id: str) -> str:
    return f"users/{checked_id('user_id', user_id)}/follow_ups/{checked_id('update_id', update_id)}.txt"


def _check(turn: NewTurn) -> None:
    checked_id("user_id", turn.user_id)
    if turn.turn_id is not None:
        checked_id("turn_id", turn.turn_id)
    short_text("request_id", turn.request_id, 100)
    for name, value, limit in (("finish_reason", turn.finish_reason, 16), ("outcome", turn.outcome, 64)):
        short_text(name, value, limit)
    short_text("base_digest", turn.base_digest, 64)
    if len(turn.completion_mask) != len(turn.completion_ids) or not set(turn.completion_mask) <= {0, 1}:
        raise InvalidValue("completion_mask", turn.completion_mask, "0 or 1 for every id of the reply")
    if any(type(token) is not int or token < 0 for token in (*turn.prompt_ids, *turn.completion_ids)):
        raise InvalidValue("token ids", "…", "whole numbers from 0")


def _row(turn: NewTurn, turn_id: str, root_id: str, num_bytes: int, now_s: float) -> TurnRow:
    return TurnRow(
        turn_id=turn_id,
        user_id=turn.user_id,
        request_id=turn.request_id,
        parent_id=turn.parent_turn_id,
        root_id=root_id,
        created_s=now_s,
        finish_reason=turn.finish_reason,
        adapter_number=turn.adapter_number,
        base_digest=turn.base_digest,
        prompt_key=turn.prompt_key,
        prefix_key=turn.prefix_key,
        reply_key=turn.reply_key,
        reply_chars=len(turn.reply_text),
        outcome=turn.outcome,
        update_id=turn.update_id,
        num_bytes=num_bytes,
    )


def _stored(row: TurnRow, conversation: Conversation, follow_up: str | None) -> StoredTurn:
    return StoredTurn(
        turn_id=row.turn_id,
        user_id=row.user_id,
        request_id=row.request_id,
        parent_turn_id=row.parent_id,
        created_s=row.created_s,
        messages=conversation.messages,
        prompt_ids=conversation.prompt_ids,
        completion_ids=conversation.completion_ids,
        completion_mask=conversation.completion_mask,
        reply_text=conversation.reply_text,
        finish_reason=row.finish_reason,
        adapter_number=row.adapter_number,
        base_digest=row.base_digest,
        follow_up=follow_up,
    )
