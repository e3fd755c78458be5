"""Forgetting a user: rows, files, keys, and every trace of them in the database."""

import logging
import secrets
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from adapters_store.audit import append
from adapters_store.changes import count_change
from adapters_store.core import Core, locked_user
from adapters_store.crash import crash_point
from adapters_store.database import BUSY_TIMEOUT_MS, sqlite_errors
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
            StorageUnavailable: files, rows or copies resist; the user is gone for everybody; the next opening goes on.
        """
        checked_id("user_id", user_id)
        counts, population = self._write(lambda session: self._mark(session, user_id))
        self._database.cut_log()  # the key is gone for good; where a reader is in the way, at the end
        crash_point("forget.marked")
        num_bytes = self._erase(user_id)
        self._erase_traces()
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
        """Delete files and rows, those of copies too; return the bytes of the files. Traces of the rows stay."""
        num_bytes = self._delete_files(user_id)
        crash_point("forget.files_deleted")
        if self._database.path is not None:
            scrub_backups(self._database.path, user_id)
        self._write(lambda session: self._delete_rows(session, user_id))
        crash_point("forget.rows_deleted")
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
        mark = 1 + secrets.randbits(30)  # not a count, which after a reset would come to the same number again
        session.execute(_traces().values(number=mark))

    def _erase_traces(self) -> None:
        """Leave no copy of deleted rows; rows that another erasure deletes meanwhile stay marked."""
        done = _traces().where(MetaRow.number == self._traces_mark()).values(number=0)
        self._database.erase_traces()
        self._write(lambda session: session.execute(done) and None)

    def _traces_mark(self) -> int:
        """Return the mark of the rows that were deleted last; 0 where no trace is left."""
        with self._read() as session:
            return session.scalars(select(MetaRow.number).where(MetaRow.name == "erase_traces")).one()

    def _resume_erasures(self) -> None:
        """Finish what a crash interrupted; what still resists waits for the next opening and stays invisible."""
        with self._read() as session:
            user_ids = list(session.scalars(select(UserRow.user_id).where(UserRow.erasing.is_(True))))
        for user_id in user_ids:
            with _logged():
                self._erase(user_id)
        with _logged():
            if self._traces_mark():
                self._erase_traces()


@contextmanager
def _logged() -> Iterator[None]:
    """Say what resists, and go on: it must not keep anything else back."""
    try:
        yield
    except StorageUnavailable as error:
        log.error("an erasure could not be finished: %s", error)


def scrub_backups(database: Path, user_id: str) -> None:
    """Delete the user's rows from the copies that upgrades left beside the database, whatever their schema.

    What is named like a copy and is no SQLite database, an operator's archive for example, cannot be scrubbed. It
    keeps nobody's erasure back, but the log names it each time.

    Raises:
        StorageUnavailable: a copy is damaged, busy or read-only, and may still hold the rows; all others were scrubbed.
    """
    failed = None
    for copy in _copies(database):
        try:
            with sqlite_errors():
                if not (copy.is_file() and _scrub(copy, user_id)):
                    log.error("%s is no SQLite database: what it may hold of a forgotten user stays", copy.name)
        except StorageUnavailable as error:
            failed = failed or type(error)(f"{copy.name} could not be scrubbed: {error}")
    if failed is not None:
        raise failed


def _copies(database: Path) -> list[Path]:
    """Return the copies beside the database, without the files that SQLite itself keeps beside a copy."""
    named = set(database.parent.glob(f"{database.name}.backup-*"))
    beside = {path.with_name(path.name + ending) for path in named for ending in ("-journal", "-wal", "-shm")}
    return sorted(named - beside)


def _scrub(copy: Path, user_id: str) -> bool:
    """Delete the user's rows from one copy and write it anew; False where it is no SQLite database."""
    with closing(driver.connect(copy, timeout=BUSY_TIMEOUT_MS / 1000, isolation_level=None)) as connection:
        if not _is_database(connection):
            return False
        with suppress(driver.OperationalError):  # another erasure has it open: whoever closes it last empties the log
            connection.execute("PRAGMA journal_mode=DELETE")
        connection.execute("PRAGMA secure_delete=ON")
        connection.execute("BEGIN IMMEDIATE")  # waits for another erasure, and for an upgrade that is still copying
        _delete_from_copy(connection, user_id)
        connection.execute("COMMIT")
        connection.execute("VACUUM")
    return True


def _is_database(connection: Any) -> bool:
    try:
        connection.execute("PRAGMA schema_version")  # the first look into the file
    except driver.DatabaseError as error:
        if "not a database" in str(error):
            return False
        raise
    return True


def _delete_from_copy(connection: Any, user_id: str) -> None:
    tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    if ("population_people",) in tables:
        person = "person IN (SELECT external_hash FROM users WHERE user_id = ?)"
        connection.execute(f"DELETE FROM population_people WHERE {person}", (user_id,))
    for (table,) in tables:
        columns = {row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')}
        if "user_id" in columns:
            connection.execute(f'DELETE FROM "{table}" WHERE user_id = ?', (user_id,))


def _count(session: Session, table: type[TurnRow] | type[VersionRow] | type[UpdateRow], user_id: str) -> int:
    return session.scalar(select(func.count()).select_from(table).where(table.user_id == user_id)) or 0


def _traces():
    return update(MetaRow).where(MetaRow.name == "erase_traces")
