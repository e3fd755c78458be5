"""The one thread that writes to the database, and its group commit."""

import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from adapters_store.errors import StorageUnavailable, StoreClosed, StoreFull

T = TypeVar("T")
Work = Callable[[Session], T]
log = logging.getLogger(__name__)


class Writer:
    """Runs pieces of work, each all or nothing, many in one commit.

    Whatever arrives while a commit is under way goes into the next one: one disk sync for all of them. Each piece
    runs in its own savepoint and session, so that one that raises takes nothing else back. ``run`` returns after the
    commit.
    """

    MAX_GROUP = 256
    MAX_TRIES = 5  # of a piece that a database server takes back to let another process go on

    def __init__(self, engine: Engine):
        self._engine = engine
        self._jobs: queue.SimpleQueue[tuple[Work[Any], Future[Any]] | None] = queue.SimpleQueue()
        self._closed = False
        self._gate = threading.Lock()
        self.num_writes = 0
        self.num_commits = 0
        self._thread = threading.Thread(target=self._loop, name="store-writer", daemon=True)
        self._thread.start()

    def run(self, work: Work[T]) -> T:
        """Return ``work(session)`` once it is committed.

        Raises:
            StoreFull: no space left; nothing of it was written.
            StorageUnavailable: the database refused, or the store is closed.
        """
        assert threading.current_thread() is not self._thread, "work must not start other work"
        future: Future[T] = Future()
        with self._gate:
            if self._closed:
                raise StoreClosed("the store is closed")
            self._jobs.put((work, future))
        return future.result()

    def close(self) -> None:
        """Finish what was handed in, then stop."""
        with self._gate:
            if not self._closed:
                self._closed = True
                self._jobs.put(None)
        self._thread.join()

    def _loop(self) -> None:
        while (first := self._jobs.get()) is not None:
            group = [first]
            while len(group) < self.MAX_GROUP and not self._jobs.empty():
                job = self._jobs.get()
                if job is None:
                    self._commit(group)
                    return
                group.append(job)
            self._commit(group)

    def _commit(self, group: list[tuple[Work[Any], Future[Any]]], num_tries: int = 1) -> None:
        """Run a group in one transaction; results are handed out after its commit."""
        done: list[tuple[Future[Any], Any]] = []
        failed: list[tuple[Future[Any], Exception]] = []
        try:
            with self._engine.begin() as connection:
                for work, future in group:
                    try:
                        done.append((future, _alone(connection, work)))
                    except DataError as error:  # a value that the database cannot hold: this piece's own fault
                        failed.append((future, storage_error(error)))
                    except DBAPIError as error:
                        if not isinstance(error, IntegrityError):  # the transaction itself is in doubt
                            raise
                        failed.append((future, error))
                    except Exception as error:
                        failed.append((future, error))
        except Exception as error:  # the whole transaction is gone
            if num_tries < self.MAX_TRIES and _is_deadlock(error):
                for job in group:  # alone, so that each holds as few locks as it can
                    self._commit([job], num_tries + 1)
            else:
                _fail(group, storage_error(error))
            return
        self.num_commits += 1
        self.num_writes += len(done)
        for future, value in done:
            future.set_result(value)
        for future, error in failed:
            future.set_exception(error)


def _alone(connection: Connection, work: Work[T]) -> T:
    """Run one piece of work in a savepoint of its own."""
    with Session(connection, join_transaction_mode="create_savepoint", expire_on_commit=False) as session:
        value = work(session)
        session.commit()
        return value


def _fail(group: list[tuple[Work[Any], Future[Any]]], error: Exception) -> None:
    log.warning("a commit of %d writes failed: %s", len(group), type(error).__name__)
    for _, future in group:
        future.set_exception(error)


def _is_deadlock(error: Exception) -> bool:
    """Whether a database server took the transaction back to let another one go on; it may be tried again."""
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) in ("40001", "40P01")


def storage_error(error: Exception) -> Exception:
    """Return what a caller is told: database errors become the store's own, everything else stays what it is."""
    if isinstance(error, PoolTimeout):
        return StorageUnavailable("every connection to the database is busy")
    if not isinstance(error, DBAPIError):
        return error
    while isinstance(error.__context__, DBAPIError):  # taking a savepoint back fails when the transaction is gone
        error = error.__context__
    text = str(error.orig).lower()
    told = StoreFull if "disk is full" in text or "no space left" in text else StorageUnavailable
    kind = "busy or unreachable" if isinstance(error, OperationalError) else "refused"
    result = told(f"the database does not work ({kind}: {type(error.orig).__name__}: {error.orig})")
    result.__cause__ = error
    return result
