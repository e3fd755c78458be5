"""Users, their key, their choice to learn or not, and their consents."""

import secrets
from contextlib import suppress

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from adapters_store.audit import append
from adapters_store.core import Core, locked_user
from adapters_store.errors import InvalidValue, NotFound
from adapters_store.ids import checked_id, keyed_hash, new_id, short_text
from adapters_store.schema import ConsentRow, MetaRow, UserRow
from adapters_store.types import LearningMode, User

MAX_EXTERNAL_CHARS = 512


class Users(Core):
    """An external id is stored only as HMAC under the installation's key.

    That key lies in the table ``meta``: one backup holds everything, several processes need no shared file, and the
    database file is readable by its owner only. Whoever holds both could test guesses of external ids; a user who
    was forgotten leaves no hash to test.
    """

    def ensure_user(self, external_id: str) -> User:
        """Return the user, who is created when first seen."""
        if found := self.find_user(external_id):
            return found
        hashed = self._external_hash(external_id)
        with suppress(IntegrityError):  # somebody else was first
            self._write(lambda session: session.add(new_row(hashed, self._clock())))
        if found := self.find_user(external_id):
            return found
        raise NotFound("the user was forgotten in the same moment")

    def find_user(self, external_id: str) -> User | None:
        query = select(UserRow).where(UserRow.external_hash == self._external_hash(external_id))
        with self._read() as session:
            row = session.scalars(query).one_or_none()
            return None if row is None or row.erasing else as_user(row)

    def get_user(self, user_id: str) -> User | None:
        with self._read() as session:
            row = session.get(UserRow, checked_id("user_id", user_id))
            return None if row is None or row.erasing else as_user(row)

    def list_users(self, limit: int = 100, after: str | None = None) -> list[User]:
        """Return users by id, those behind ``after``; nobody reserved."""
        query = select(UserRow).where(UserRow.erasing.is_(False), UserRow.user_id > (after or ""))
        query = query.where(UserRow.external_hash.is_not(None))
        with self._read() as session:
            return [as_user(row) for row in session.scalars(query.order_by(UserRow.user_id).limit(limit))]

    def user_key(self, user_id: str) -> bytes:
        """Return the user's random key (32 bytes) for hashes of texts; ``forget`` destroys it."""
        query = select(UserRow.key).where(UserRow.user_id == checked_id("user_id", user_id), UserRow.erasing.is_(False))
        with self._read() as session:
            if (key := session.scalars(query).one_or_none()) is None:
                raise NotFound(f"no user {user_id!r}")
            return key

    def set_learning(self, user_id: str, mode: LearningMode) -> None:
        if mode not in ("active", "paused"):
            raise InvalidValue("mode", mode, "'active' or 'paused'")

        def work(session):
            locked_user(session, user_id).learning = mode
            append(session, self._clock(), "store", "user.learning", user_id, {"mode": mode})

        self._write(work)

    def record_consent(self, user_id: str, granted: bool, text_version: str, actor: str) -> None:
        """Record an answer to the question whether to learn; ``text_version`` names the wording that was shown."""
        short_text("text_version", text_version, 64)
        short_text("actor", actor, 100)

        def work(session):
            locked_user(session, user_id).consent = bool(granted)
            now = self._clock()
            row = ConsentRow(
                user_id=user_id, granted=bool(granted), text_version=text_version, actor=actor, created_s=now
            )
            session.add(row)
            append(session, now, actor, "user.consent", user_id, {"granted": bool(granted)})

        self._write(work)

    def _external_hash(self, external_id: str) -> str:
        if not isinstance(external_id, str) or not 0 < len(external_id) <= MAX_EXTERNAL_CHARS:
            raise InvalidValue("external id", external_id, f"1 to {MAX_EXTERNAL_CHARS} characters")
        return keyed_hash(self._installation_key(), "external-id", external_id.encode("utf-8", "surrogatepass"))

    def _installation_key(self) -> bytes:
        if self._key is None:
            with self._read() as session:
                text = session.scalars(select(MetaRow.text).where(MetaRow.name == "installation_key")).one()
            self._key = bytes.fromhex(text)
        return self._key


def new_row(hashed: str | None, now_s: float) -> UserRow:
    """Return a new user's row; without a hash nobody can ever be this user."""
    return UserRow(user_id=new_id(), external_hash=hashed, key=secrets.token_bytes(32), created_s=now_s)


def as_user(row: UserRow) -> User:
    learning: LearningMode = "paused" if row.learning == "paused" else "active"
    reserved = row.external_hash is None
    return User(row.user_id, row.created_s, learning, row.consent, row.epoch, row.num_turns, row.num_updates, reserved)
