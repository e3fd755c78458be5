import os
import subprocess
import sys
import threading
from contextlib import closing

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from adapters_store import LocalBlobs, Store, migration
from adapters_store.database import Database
from adapters_store.errors import InvalidValue, SchemaTooNew, StorageUnavailable, StoreFull
from adapters_store.migration import SCRIPTS, backup, migrate, revisions
from adapters_store.schema import Base
from adapters_store.sqlite import driver


def test_migrations_make_exactly_the_models_tables(url):
    database = Database(url)
    migrate(database)
    with database.reading.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    migrate(database)  # nothing to do
    database.close()


def test_the_scripts_names_say_their_revisions_in_one_line():
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    scripts = ScriptDirectory.from_config(config)
    assert revisions() == [script.revision for script in scripts.walk_revisions()][::-1]
    assert revisions()[-1] == scripts.get_current_head()


def test_alembic_is_imported_only_where_a_migration_is_due(url, tmp_path):
    program = (
        "import sys\n"
        "from adapters_store import LocalBlobs, Store\n"
        "imported = ['alembic' in sys.modules]\n"
        "for _ in range(2):\n"
        f"    Store.open({url!r}, LocalBlobs({str(tmp_path / 'files')!r})).close()\n"
        "    imported.append('alembic' in sys.modules)\n"
        "print(imported)"
    )
    said = [subprocess.run([sys.executable, "-c", program], capture_output=True, text=True) for _ in range(2)]
    assert [one.stdout.strip() for one in said] == ["[False, True, True]", "[False, False, False]"], said


def test_an_existing_database_is_backed_up_before_its_upgrade(tmp_path, open_hand):
    path = tmp_path / "home" / "index.sqlite"
    database = Database(f"sqlite:///{path}")
    migrate(database, to="0001")
    with database.writing.begin() as connection:
        connection.exec_driver_sql("UPDATE meta SET number = 41 WHERE name = 'changes'")
    database.close()
    assert list(path.parent.glob("*backup*")) == []

    assert open_hand().store.change_counter() == 41
    copy = path.with_name("index.sqlite.backup-0001")
    assert copy.stat().st_mode & 0o777 == 0o600
    with driver.connect(copy) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == ("0001",)
        assert connection.execute("SELECT number FROM meta WHERE name = 'changes'").fetchone() == (41,)
    connection.close()
    open_hand()
    assert len(list(path.parent.glob("*backup*"))) == 1


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (IsADirectoryError(21, "Is a directory"), StorageUnavailable),
        (OSError(28, "No space left on device"), StoreFull),
        (driver.OperationalError("disk I/O error"), StorageUnavailable),
        (driver.OperationalError("database or disk is full"), StoreFull),
    ],
)
def test_without_a_copy_there_is_no_upgrade(tmp_path, monkeypatch, error, told):
    def fail(source, target):
        raise error

    database = Database(f"sqlite:///{tmp_path / 'index.sqlite'}")
    migrate(database, to="0001")
    monkeypatch.setattr(migration, "backup", fail)
    with pytest.raises(StorageUnavailable) as caught:
        migrate(database)
    assert type(caught.value) is told
    with database.reading.connect() as connection:
        assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() == "0001"
    database.close()


def test_a_copy_needs_no_log_where_its_database_has_one(tmp_path):
    path, copy = tmp_path / "index.sqlite", tmp_path / "copy.sqlite"
    with closing(driver.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE users (id TEXT)")
        backup(path, copy)
    with closing(driver.connect(copy)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    assert list(tmp_path.glob("copy*")) == [copy]


def test_a_newer_database_is_refused_and_left_alone(url, tmp_path):
    blobs = LocalBlobs(tmp_path / "files")
    Store.open(url, blobs).close()
    database = Database(url)
    with database.writing.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(SchemaTooNew, match="9999"):
        Store.open(url, blobs)
    with database.reading.connect() as connection:
        assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() == "9999"
    database.close()


@pytest.mark.parametrize("revision", ["0001", "9999"])
def test_a_database_of_two_schemas_is_refused(revision, url, tmp_path):
    blobs = LocalBlobs(tmp_path / "files")
    Store.open(url, blobs).close()
    database = Database(url)
    with database.writing.begin() as connection:
        connection.exec_driver_sql(f"INSERT INTO alembic_version (version_num) VALUES ('{revision}')")
    database.close()
    with pytest.raises(StorageUnavailable, match=f"schemas?.* .*{revision}"):
        Store.open(url, blobs)


def test_a_database_that_does_not_say_its_schema_is_refused(url, tmp_path):
    blobs = LocalBlobs(tmp_path / "files")
    Store.open(url, blobs).close()
    database = Database(url)
    with database.writing.begin() as connection:
        connection.exec_driver_sql("DELETE FROM alembic_version")
    database.close()
    with pytest.raises(StorageUnavailable, match="alembic_version"):
        Store.open(url, blobs)


def test_a_database_of_something_else_is_refused(tmp_path):
    path = tmp_path / "other.sqlite"
    with driver.connect(path) as connection:
        connection.execute("CREATE TABLE recipes (id INTEGER)")
    connection.close()
    with pytest.raises(StorageUnavailable, match="recipes"):
        Store.open(f"sqlite:///{path}", LocalBlobs(tmp_path / "files"))


def test_a_file_that_is_no_database_is_refused(tmp_path):
    path = tmp_path / "noise.sqlite"
    path.write_bytes(os.urandom(8192))
    with pytest.raises(StorageUnavailable):
        Store.open(f"sqlite:///{path}", LocalBlobs(tmp_path / "files"))


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://x/y", "nonsense"])
def test_other_urls_are_refused(url, tmp_path):
    with pytest.raises(InvalidValue, match="url"):
        Store.open(url, LocalBlobs(tmp_path))


def test_many_may_open_a_new_store_at_once(url, tmp_path):
    stores, errors = [], []

    def work():
        try:
            stores.append(Store.open(url, LocalBlobs(tmp_path / "files")))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len({store.ensure_user("ann").user_id for store in stores}) == 1
    for store in stores:
        store.close()
