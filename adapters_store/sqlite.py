"""The SQLite that the store uses: Python's own, or the package ``pysqlite3`` where only that one is safe with a WAL.

Both are the same interface to different builds of the library. While a process has a file open through one of them it
must not open it through the other: POSIX locks belong to the process, and closing a file in one build drops the
other's.
"""

import importlib
import sqlite3
from types import ModuleType
from typing import Any

from adapters_store.journal import journal_mode


def newer_driver() -> ModuleType | None:
    """Return the build that the package ``pysqlite3`` brings; None where it is not installed."""
    try:
        return importlib.import_module("pysqlite3.dbapi2")
    except ImportError:
        return None


def choose(own: Any, other: Any | None) -> Any:
    """Return ``other`` where that build is safe with a write-ahead log and ``own`` is not, else ``own``."""
    if other is None or journal_mode(own.sqlite_version_info) == "wal":
        return own
    return other if journal_mode(other.sqlite_version_info) == "wal" else own


driver = choose(sqlite3, newer_driver())
"""A module like the standard library's ``sqlite3``."""
