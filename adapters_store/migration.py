"""Bringing a database to the schema of this code."""

import logging
import os
from contextlib import closing
from pathlib import Path

from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError

from adapters_store.database import Database, sqlite_errors
from adapters_store.errors import SchemaTooNew, StorageUnavailable
from adapters_store.files import storage_errors
from adapters_store.sqlite import driver
from adapters_store.writer import storage_error

SCRIPTS = Path(__file__).with_name("migrations")
VERSION_TABLE = "alembic_version"
log = logging.getLogger(__name__)


def migrate(database: Database, to: str = "head") -> None:
    """Create or upgrade the tables in one transaction; an existing SQLite file is backed up first.

    Raises:
        SchemaTooNew: newer code wrote this database; nothing is touched.
        StorageUnavailable: it is not a database of this store, or it or the copy cannot be written.
        StoreFull: no space for the copy; nothing is touched.
    """
    known = revisions()
    wanted = known[-1] if to == "head" else to
    try:
        with database.reading.connect() as connection:
            current = _revision(connection, known)
        if current == wanted:
            return
        if current is not None and database.path is not None:
            with storage_errors(), sqlite_errors():
                backup(database.path, database.path.with_name(f"{database.path.name}.backup-{current}"))
        from adapters_store.upgrading import upgrade  # brings in Alembic, which takes long and is needed only here

        upgrade(database, SCRIPTS, wanted)
    except DBAPIError as error:
        raise storage_error(error) from error


def revisions() -> list[str]:
    """Return the revisions that this code knows, oldest first: a script is named ``<revision>_<what>.py``."""
    return sorted(path.stem.partition("_")[0] for path in SCRIPTS.glob("versions/[0-9]*_*.py"))


def backup(source: Path, target: Path) -> None:
    """Copy a live SQLite database through its backup API; reading the file itself would drop SQLite's locks.

    The copy needs no write-ahead log, so that it is a single file, whoever opens it.
    """
    temporary = target.with_name(target.name + ".new")
    os.close(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600))
    with closing(driver.connect(source)) as live, closing(driver.connect(temporary)) as copy:
        live.backup(copy)
        copy.execute("PRAGMA journal_mode=DELETE")
    os.replace(temporary, target)
    log.info("database backed up as %s before its upgrade", target.name)


def _revision(connection: Connection, known: list[str]) -> str | None:
    """Return the revision of the database; None where it is empty."""
    inspector = inspect(connection)
    tables = inspector.get_table_names()  # first: whoever makes them meanwhile writes the revision along with them
    versioned = inspector.has_table(VERSION_TABLE)
    found = list(connection.scalars(text(f"SELECT version_num FROM {VERSION_TABLE}"))) if versioned else []
    if tables and not found:
        raise StorageUnavailable(f"the database holds tables of something else: {sorted(tables)[:5]}")
    if strange := sorted(set(found).difference(known)):
        raise SchemaTooNew(f"the database has schema {', '.join(strange)}; this code knows up to {known[-1]}")
    if len(found) > 1:
        raise StorageUnavailable(f"the database says that it has several schemas: {sorted(found)}; allowed: one")
    return found[0] if found else None
