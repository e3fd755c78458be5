import sqlite3
from types import SimpleNamespace

import pytest

from adapters_store.journal import journal_mode
from adapters_store.sqlite import choose, driver


@pytest.mark.parametrize(
    ("version", "mode"),
    [
        ((3, 7, 0), "delete"),
        ((3, 40, 1), "delete"),
        ((3, 43, 9), "delete"),
        ((3, 44, 5), "delete"),
        ((3, 44, 6), "wal"),
        ((3, 44, 9), "wal"),
        ((3, 45, 0), "delete"),
        ((3, 46, 1), "delete"),
        ((3, 49, 99), "delete"),
        ((3, 50, 6), "delete"),
        ((3, 50, 7), "wal"),
        ((3, 51, 0), "delete"),
        ((3, 51, 2), "delete"),
        ((3, 51, 3), "wal"),
        ((3, 52, 0), "wal"),
        ((4, 0, 0), "wal"),
    ],
)
def test_wal_only_where_the_race_is_fixed(version, mode):
    assert journal_mode(version) == mode


@pytest.mark.parametrize(
    ("own", "other", "chosen"),
    [
        ((3, 51, 3), (3, 53, 4), "own"),
        ((3, 40, 1), (3, 53, 4), "other"),
        ((3, 40, 1), (3, 51, 1), "own"),
        ((3, 40, 1), None, "own"),
    ],
)
def test_the_library_that_is_safe_with_a_log_is_used_and_pythons_own_where_both_are(own, other, chosen):
    builds = {
        name: version and SimpleNamespace(sqlite_version_info=version)
        for name, version in (("own", own), ("other", other))
    }
    assert choose(builds["own"], builds["other"]) is builds[chosen]


def test_what_is_chosen_can_do_what_the_standard_library_can():
    assert driver.sqlite_version_info >= sqlite3.sqlite_version_info
    assert {"connect", "Error", "OperationalError", "sqlite_version"} <= set(dir(driver))


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_every_connection_gets_the_journal_and_the_pragmas(open_hand, monkeypatch, mode):
    monkeypatch.setattr("adapters_store.database.journal_mode", lambda version: mode)
    hand = open_hand()
    assert hand.store.status().journal_mode == mode
    assert hand.store.status().sqlite_version == driver.sqlite_version
    database = hand.store._database
    for engine in (database.writing, database.reading):
        with engine.connect() as connection:
            pragma = lambda name, on=connection: on.exec_driver_sql(f"PRAGMA {name}").scalar()  # noqa: E731
            assert pragma("journal_mode") == mode
            assert pragma("synchronous") == (2 if mode == "wal" else 3)  # FULL, or EXTRA, which is more
            assert pragma("secure_delete") == 1
            assert pragma("foreign_keys") == 1
            assert pragma("busy_timeout") >= 5000


def test_readers_cannot_write_and_the_file_is_private(local):
    with local.store._database.reading.connect() as connection, pytest.raises(Exception, match="readonly"):
        connection.exec_driver_sql("DELETE FROM meta")
    assert local.store._database.path.stat().st_mode & 0o777 == 0o600


def test_the_file_behind_a_link_is_private_too(tmp_path, open_hand):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "index.sqlite").symlink_to(tmp_path / "elsewhere.sqlite")
    open_hand()
    assert (tmp_path / "elsewhere.sqlite").stat().st_mode & 0o777 == 0o600
