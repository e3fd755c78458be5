"""The store: everything that is kept of users, turns, updates and versions, behind one object."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from adapters_store.archive import Archive
from adapters_store.audit import Audit
from adapters_store.bases import Bases
from adapters_store.blobs import BlobStore
from adapters_store.database import Database
from adapters_store.deadlines import Deadlines
from adapters_store.erasure import Erasure
from adapters_store.keys import Keys
from adapters_store.limits import Limits
from adapters_store.migration import migrate
from adapters_store.populations import Populations
from adapters_store.reviews import Reviews
from adapters_store.sqlite import driver
from adapters_store.sweeping import Sweeping
from adapters_store.types import StoreStatus


class Store(Archive, Populations, Reviews, Keys, Erasure, Sweeping, Audit, Bases, Deadlines):
    """An open store. Methods block, may be called from any thread, and return after their effect is durable.

    Its parts, one file each: users and consents, keys, turns, the update queue with its lease and its deadlines,
    versions and heads, publishing, the population adapter, reviews, retention and sweeping, erasure, export, audit, the
    bases that were opened. Several processes may hold one store open.
    """

    @classmethod
    def open(
        cls, url: str, blobs: BlobStore, *, clock: Callable[[], float] = time.time, limits: Limits | None = None
    ) -> Self:
        """Open a store, creating or upgrading its tables, and finish erasures that a crash interrupted.

        Args:
            url: ``sqlite:///<file>`` or ``postgresql://…``; a SQLite file is created readable by its owner only.
            blobs: where files live; it stays the caller's.
            clock: seconds since 1970.

        Raises:
            SchemaTooNew: newer code wrote the database; nothing is touched.
            StorageUnavailable: it cannot be opened, or is no store.
        """
        database = Database(url)
        try:
            migrate(database)
            store = cls(database, blobs, clock, limits or Limits())
        except BaseException:
            database.close()
            raise
        store._resume_erasures()
        return store

    def close(self) -> None:
        """Finish the writes that were handed in, then let the database go; may be called twice."""
        self._writer.close()
        self._database.close()

    def status(self) -> StoreStatus:
        return StoreStatus(
            journal_mode=self._database.journal_mode,
            sqlite_version=driver.sqlite_version if self._database.is_sqlite else None,
            free_fraction=self._blobs.free_fraction(),
            learning_paused_reason=self._paused_reason(),
            pending_updates=self._pending_updates(),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
