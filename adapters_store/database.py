"""The engines under the store: one that writes, one that reads."""

import errno
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError

from adapters_store.errors import InvalidValue, StorageUnavailable, StoreFull
from adapters_store.journal import journal_mode
from adapters_store.sqlite import driver

BUSY_TIMEOUT_MS = 20_000
_creating = threading.Lock()  # held until a new file is closed: no thread connects to it before


class Database:
    """Engines for one URL.

    Writing: one connection, taken by one thread at a time; on SQLite every transaction starts with BEGIN IMMEDIATE,
    because one that reads first and writes later fails at once when somebody else committed in between. Reading:
    a small pool in autocommit, so that no reader holds a lock between two statements.
    """

    def __init__(self, url: str):
        self.url = _checked(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.journal_mode = journal_mode(driver.sqlite_version_info) if self.is_sqlite else "server"
        self.path: Path | None = Path(self.url.database or "") if self.is_sqlite else None
        if self.path is not None:
            _create_private(self.path)
        self.writing = self._engine(writing=True)
        self.reading = self._engine(writing=False)

    def _engine(self, writing: bool) -> Engine:
        size: dict[str, Any] = (
            {"pool_size": 1, "max_overflow": 0, "pool_timeout": 600}
            if writing
            else {"pool_size": 8, "max_overflow": 24}
        )
        if not self.is_sqlite:
            level = {} if writing else {"isolation_level": "AUTOCOMMIT"}
            return create_engine(self.url, pool_pre_ping=True, **size, **level)
        engine = create_engine(self.url, module=driver, connect_args={"timeout": BUSY_TIMEOUT_MS / 1000}, **size)
        event.listen(engine, "connect", _prepare(self.journal_mode, writing))
        if writing:
            event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
        return engine

    def erase_traces(self) -> None:
        """Leave no copy of deleted rows on SQLite's side.

        The pragma ``secure_delete`` zeroes deleted cells, but where cells were moved between pages before, their free
        space may still hold older copies (a test shows it), and a write-ahead log holds old pages. So the file is
        written anew, which keeps other writers waiting, and the log is cut off. A database server keeps dead rows
        until its own vacuum, and copies in its logs; that is the operator's part.

        Raises:
            StorageUnavailable: another process keeps the file busy, or there is no room for the copy.
        """
        if not self.is_sqlite:
            return
        with self.writing.connect() as connection, sqlite_errors():
            raw = connection.connection.driver_connection
            assert raw is not None
            raw.execute("VACUUM")
        if not self.cut_log():
            raise StorageUnavailable("a reader keeps the write-ahead log from being cut off")

    def cut_log(self) -> bool:
        """Bring what SQLite's write-ahead log holds into the file and empty it; False where a reader is in the way.

        What was overwritten stands in the log until then. Without such a log there is nothing to do.
        """
        if not self.is_sqlite:
            return True
        with self.writing.connect() as connection, sqlite_errors():
            raw = connection.connection.driver_connection
            assert raw is not None
            return not raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]

    def close(self) -> None:
        self.reading.dispose()
        self.writing.dispose()


@contextmanager
def sqlite_errors() -> Iterator[None]:
    """Turn the driver's own errors into the store's."""
    try:
        yield
    except driver.Error as error:
        told = StoreFull if "full" in str(error) else StorageUnavailable
        raise told(f"the database does not work: {error}") from error


def _checked(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # the second where the port is no number
        shown = re.sub(".*@", "***@", url, flags=re.DOTALL)  # what cannot be parsed may still hold a password
        raise InvalidValue("url", shown, "a database URL such as sqlite:///index.sqlite") from None
    backend = parsed.get_backend_name()
    if backend == "sqlite" and parsed.database not in (None, "", ":memory:"):
        return parsed
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    raise InvalidValue("url", parsed.render_as_string(hide_password=True), "sqlite:///<file> or postgresql://...")


def _create_private(path: Path) -> None:
    """Create the database file readable by its owner only; SQLite gives its journals the same mode.

    A file that is there is left to SQLite, and only looked at: to open and close it here would drop every lock that
    this process holds on it (POSIX).

    Raises:
        StorageUnavailable: this account may not make it or not open it, or it is no file.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _creating, suppress(FileExistsError):
            os.close(os.open(os.path.realpath(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        if path.is_dir() or not os.access(path, os.R_OK | os.W_OK):
            code = errno.EISDIR if path.is_dir() else errno.EACCES
            raise OSError(code, os.strerror(code))
    except OSError as error:
        raise StorageUnavailable(f"unable to open the database {path}: {error.strerror}") from error


def _prepare(journal: str, writing: bool) -> Callable[[Any, object], None]:
    # After a power loss a deleted rollback journal can come back and undo the last commit unless its directory is
    # synced too: that is EXTRA, which is FULL and this one sync more.
    synchronous = "FULL" if journal == "wal" else "EXTRA"
    pragmas = [
        f"busy_timeout={BUSY_TIMEOUT_MS}",
        f"journal_mode={journal}",
        f"synchronous={synchronous}",
        "secure_delete=ON",
        "foreign_keys=ON",
        "trusted_schema=OFF",
    ]

    def prepare(connection: Any, record: object) -> None:
        connection.isolation_level = None  # transactions begin where SQLAlchemy says, not where the driver guesses
        for pragma in pragmas if writing else [*pragmas, "query_only=ON"]:
            connection.execute(f"PRAGMA {pragma}")

    return prepare
