"""Forgetting a user: rows, files, keys, and every trace of them in the database."""

import logging
from contextlib import closing
from pathlib import Path

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from adapters_store.audit import append
from adapters_store.changes import count_change
from adapters_store.core import Core, locked_user
from adapters_store.crash import crash_point
from adapters_store.database import sqlite_errors
from adapters_store.errors import StorageUnavailable
from adapters_store.heads import cancel_updates
from adapters_store.ids import checked_id
from adapters_store.populations import leave
from adapters_store.schema import ApiKeyRow, ConsentRow, HeadRow, MetaRow, TurnRow, UpdateRow, UserRow, VersionRow
from adapters_store.sources import PopulationUse
from adapters_store.sqlite import driver
from adapters_store.types import Receipt

OWNED = (HeadRow, VersionRow, UpdateRow, TurnRow, ConsentRow, ApiKeyRow)
ATTEMPTS = 5
log = logging.getLogger(__name__)


class Erasure(Core):
    """From the first transaction on the user is gone: key and external hash are wiped, the epoch has moved, nothing
    can be found or published. The rest can be taken up again after a crash, and is, when the store is opened.
    """

    def forget(self, user_id: str) -> Receipt:
        """Destroy everything that is the user's; return counts, and the population adapters that the user is part of.

        Whoever comes back under the same external id is a new user.

        Raises:
            NotFound: no such user.
            StorageUnavailable: files or rows resist; the user is gone for everybody and opening the store goes on.
        """
        checked_id("user_id", user_id)
        counts, population = self._write(lambda session: self._mark(session, user_id))
        self._database.cut_log()  # the key is gone for good; where a reader is in the way, at the end
        crash_point("forget.marked")
        num_bytes = self._erase(user_id)
        return Receipt(*counts, num_bytes, self._clock(), population)

    def _mark(self, session: Session, user_id: str) -> tuple[tuple[int, int, int], tuple[PopulationUse, ...]]:
        user = locked_user(session, user_id)
        population = leave(session, self._clock(), user.external_hash, user_id)
        user.epoch += 1
        user.erasing = True
        user.key = bytes(32)
        user.external_hash = None
        cancel_updates(session, user_id, "cancelled_erasure", self._clock())
        session.execute(delete(ApiKeyRow).where(ApiKeyRow.user_id == user_id))
        session.execute(delete(HeadRow).where(HeadRow.user_id == user_id))
        count_change(session, user_id)
        counts = (
            _count(session, TurnRow, user_id),
            _count(session, VersionRow, user_id),
            _count(session, UpdateRow, user_id),
        )
        return counts, population

    def _erase(self, user_id: str) -> int:
        num_bytes = self._delete_files(user_id)
        crash_point("forget.files_deleted")
        if self._database.path is not None:
            scrub_backups(self._database.path, user_id)
        self._write(lambda session: self._delete_rows(session, user_id))
        crash_point("forget.rows_deleted")
        self._erase_traces()
        return num_bytes

    def _delete_files(self, user_id: str) -> int:
        """Delete the user's files; a late job may write one in between, so look again."""
        num_bytes = 0
        for attempt in range(ATTEMPTS):
            try:
                for key in (f"staging/{user_id}", f"users/{user_id}"):
                    num_bytes += self._blobs.delete(key)
                return num_bytes
            except StorageUnavailable:
                if attempt == ATTEMPTS - 1:
                    raise
        return num_bytes

    def _delete_rows(self, session: Session, user_id: str) -> None:
        for table in OWNED:
            session.execute(delete(table).where(table.user_id == user_id))
        if session.execute(delete(UserRow).where(UserRow.user_id == user_id)).rowcount == 1:  # pyright: ignore[reportAttributeAccessIssue]
            append(session, self._clock(), "store", "user.forget", user_id)
        session.execute(update(MetaRow).where(MetaRow.name == "erase_traces").values(number=MetaRow.number + 1))

    def _erase_traces(self) -> None:
        self._database.erase_traces()
        self._write(lambda session: session.execute(_traces().values(number=0)) and None)

    def _resume_erasures(self) -> None:
        """Finish what a crash interrupted; what still resists waits for the next opening and stays invisible."""
        with self._read() as session:
            user_ids = list(session.scalars(select(UserRow.user_id).where(UserRow.erasing.is_(True))))
            traces = session.scalars(select(MetaRow.number).where(MetaRow.name == "erase_traces")).one()
        try:
            for user_id in user_ids:
                self._erase(user_id)
            if traces and not user_ids:
                self._erase_traces()
        except StorageUnavailable as error:
            log.error("an erasure could not be finished: %s", error)


def scrub_backups(database: Path, user_id: str) -> None:
    """Delete the user's rows from the copies that upgrades left beside the database, whatever their schema."""
    for copy in database.parent.glob(f"{database.name}.backup-*"):
        with sqlite_errors(), closing(driver.connect(copy, isolation_level=None)) as connection:
            connection.execute("PRAGMA secure_delete=ON")
            tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            if ("population_people",) in tables:
                person = "person IN (SELECT external_hash FROM users WHERE user_id = ?)"
                connection.execute(f"DELETE FROM population_people WHERE {person}", (user_id,))
            for (table,) in tables:
                columns = {row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')}
                if "user_id" in columns:
                    connection.execute(f'DELETE FROM "{table}" WHERE user_id = ?', (user_id,))
            connection.execute("VACUUM")


def _count(session: Session, table: type[TurnRow] | type[VersionRow] | type[UpdateRow], user_id: str) -> int:
    return session.scalar(select(func.count()).select_from(table).where(table.user_id == user_id)) or 0


def _traces():
    return update(MetaRow).where(MetaRow.name == "erase_traces")
