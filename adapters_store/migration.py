"""Bringing a database to the schema of this code."""

import logging
import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError

from adapters_store.database import Database
from adapters_store.errors import SchemaTooNew, StorageUnavailable
from adapters_store.writer import storage_error

SCRIPTS = Path(__file__).with_name("migrations")
LOCK_NUMBER = 7_263_904_118  # any number that no other program uses for its advisory lock
_alembic = threading.Lock()  # Alembic's script context is global to the process
log = logging.getLogger(__name__)


def migrate(database: Database, to: str = "head") -> None:
    """Create or upgrade the tables in one transaction; an existing SQLite file is backed up first.

    Raises:
        SchemaTooNew: newer code wrote this database; nothing is touched.
        StorageUnavailable: it is not a database of this store, or cannot be written.
    """
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    scripts = ScriptDirectory.from_config(config)
    try:
        with database.reading.connect() as connection:
            current = _revision(connection, scripts)
        if current == (scripts.get_current_head() if to == "head" else to):
            return
        if current is not None and database.path is not None:
            backup(database.path, database.path.with_name(f"{database.path.name}.backup-{current}"))
        with _alembic, database.writing.begin() as connection:
            if not database.is_sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": LOCK_NUMBER})
            config.attributes["connection"] = connection
            command.upgrade(config, to)
    except DBAPIError as error:
        raise storage_error(error) from error


def backup(source: Path, target: Path) -> None:
    """Copy a live SQLite database through its backup API; reading the file itself would drop SQLite's locks."""
    temporary = target.with_name(target.name + ".new")
    os.close(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600))
    with closing(sqlite3.connect(source)) as live, closing(sqlite3.connect(temporary)) as copy:
        live.backup(copy)
    os.replace(temporary, target)
    log.info("database backed up as %s before its upgrade", target.name)


def _revision(connection: Connection, scripts: ScriptDirectory) -> str | None:
    current = MigrationContext.configure(connection).get_current_revision()
    known = {script.revision for script in scripts.walk_revisions()}
    if current is not None and current not in known:
        raise SchemaTooNew(f"the database has schema {current}; this code knows up to {scripts.get_current_head()}")
    if current is None and (strange := inspect(connection).get_table_names()):
        raise StorageUnavailable(f"the database holds tables of something else: {sorted(strange)[:5]}")
    return current
