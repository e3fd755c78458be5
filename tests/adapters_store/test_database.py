"""What a database URL may be, and what is said of a file that cannot be opened."""

import pytest

from adapters_store.database import Database
from adapters_store.errors import InvalidValue, StorageUnavailable


def test_a_folder_is_no_database(tmp_path):
    with pytest.raises(StorageUnavailable, match="Is a directory") as caught:
        Database(f"sqlite:///{tmp_path}")
    assert str(tmp_path) in str(caught.value)


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "index.sqlite"
    with pytest.raises(StorageUnavailable, match="unable to open the database") as caught:
        Database(f"sqlite:///{path}")
    assert str(path) in str(caught.value)


def test_what_this_account_may_not_open_is_named(tmp_path, monkeypatch):
    path = tmp_path / "index.sqlite"
    path.touch()
    with monkeypatch.context() as patch, pytest.raises(StorageUnavailable, match="Permission denied") as caught:
        patch.setattr("adapters_store.database.os.access", lambda *asked: False)  # root may open everything
        Database(f"sqlite:///{path}")
    assert str(path) in str(caught.value)


def test_a_port_must_be_a_number():
    with pytest.raises(InvalidValue, match="url = 'postgresql://host:port/db'"):
        Database("postgresql://host:port/db")


@pytest.mark.parametrize("url", ["postgresql://ann:se@cret@host:port/db", "postgresql//ann:secret@host/db"])
def test_a_url_that_cannot_be_read_does_not_show_its_password(url):
    with pytest.raises(InvalidValue, match=r"url = '\*\*\*@host") as caught:
        Database(url)
    assert "cret" not in str(caught.value)
