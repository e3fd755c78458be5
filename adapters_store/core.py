"""What every part of the store stands on: database, files, clock, limits."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from sqlalchemy import Connection, func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from adapters_store.blobs import BlobStore
from adapters_store.database import Database
from adapters_store.errors import Erased, NotFound
from adapters_store.ids import checked_id, new_id
from adapters_store.limits import Limits
from adapters_store.schema import UserRow, VersionRow
from adapters_store.writer import Writer, storage_error

T = TypeVar("T")


class Core:
    """Reads run on the caller's thread, each in its own short session; writes go through the one writer."""

    def __init__(self, database: Database, blobs: BlobStore, clock: Callable[[], float], limits: Limits):
        self._database = database
        self._blobs = blobs
        self._clock = clock
        self._limits = limits
        self._writer = Writer(database.writing)
        self._instance = new_id()
        self._key: bytes | None = None  # the installation's, once it was read
        self._claims: dict[str, int] = {}  # update id -> fence under which this process claimed it

    @contextmanager
    def _read(self) -> Iterator[Session]:
        try:
            with Session(self._database.reading) as session:
                yield session
        except (DBAPIError, PoolTimeout) as error:
            raise storage_error(error) from error

    @contextmanager
    def _connect(self) -> Iterator[Connection]:
        """A reading connection, for plain rows where a session would cost more than the query."""
        try:
            with self._database.reading.connect() as connection:
                yield connection
        except (DBAPIError, PoolTimeout) as error:
            raise storage_error(error) from error

    def _write(self, work: Callable[[Session], T]) -> T:
        return self._writer.run(work)

    def _paused_reason(self) -> str | None:
        """Return why nothing may be learnt now: the disk is nearly full, or everything together is too large."""
        used, allowed = 1.0 - self._blobs.free_fraction(), self._limits.max_used_fraction
        if used >= allowed:
            return f"the disk is {used:.0%} full; learning pauses at {allowed:.0%}"
        limit = self._limits.max_total_bytes
        if limit is not None and (total := self._total_bytes()) >= limit:
            return f"turns and versions take {total} bytes; learning pauses at {limit}"
        return None

    def _total_bytes(self) -> int:
        turns = select(func.coalesce(func.sum(UserRow.turn_bytes), 0))
        versions = select(func.coalesce(func.sum(VersionRow.num_bytes), 0))
        with self._read() as session:
            return int(session.scalar(turns) or 0) + int(session.scalar(versions) or 0)


def locked_user(session: Session, user_id: str, epoch: int | None = None) -> UserRow:
    """Return the user's row, locked for this transaction.

    Raises:
        NotFound: there is no such user.
        Erased: the erasure epoch is not the given one any more.
    """
    row = session.get(UserRow, checked_id("user_id", user_id), with_for_update=True)
    if epoch is not None and (row is None or row.erasing or row.epoch != epoch):
        raise Erased(f"user {user_id} was forgotten")
    if row is None or row.erasing:
        raise NotFound(f"no user {user_id!r}")
    return row
