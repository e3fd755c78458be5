"""The migration scripts, run by Alembic."""

import threading
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import text

from adapters_store.database import Database

LOCK_NUMBER = 7_263_904_118  # any number that no other program uses for its advisory lock
_alembic = threading.Lock()  # Alembic's script context is global to the process


def upgrade(database: Database, scripts: Path, to: str) -> None:
    """Run in one transaction the scripts up to ``to`` that the database lacks; several processes may try at once.

    Raises:
        sqlalchemy.exc.DBAPIError: the database cannot be written.
    """
    config = Config()
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    with _alembic, database.writing.begin() as connection:
        if not database.is_sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": LOCK_NUMBER})
        config.attributes["connection"] = connection
        command.upgrade(config, to)
