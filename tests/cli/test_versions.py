"""``personalize versions``."""

import os
import sys
import zipfile

import pytest

from personalize.backends.echo import write_folder


def numbers(shell) -> list[int]:
    return sorted(version["number"] for version in shell.json("versions", "list", "alice"))


def head(shell) -> int | None:
    return shell.json("users", "show", "alice")["head"]


def test_versions_are_listed_rolled_back_and_reset(taught):
    assert numbers(taught) == [1, 2]
    assert "head is version 1" in taught.run("versions", "rollback", "alice", "1")
    assert head(taught) == 1
    assert "base model" in taught.run("versions", "reset", "alice")
    assert head(taught) is None
    assert numbers(taught) == [1, 2]


def test_undo_goes_to_the_parent_and_then_to_the_base(taught):
    assert "head is version 1" in taught.run("versions", "undo", "alice")
    assert "base model" in taught.run("versions", "undo", "alice")
    assert head(taught) is None


def test_the_table_marks_the_head(taught):
    rows = [line for line in taught.run("versions", "list", "alice").splitlines() if "update" in line]
    assert len(rows) == 2
    assert sum("yes" in row for row in rows) == 1


def test_a_version_can_be_pinned_and_released(taught):
    taught.run("versions", "pin", "alice", "1")
    pinned = {version["number"]: version["pinned"] for version in taught.json("versions", "list", "alice")}
    assert pinned == {1: True, 2: False}
    taught.run("versions", "pin", "alice", "1", "--release")
    assert not any(version["pinned"] for version in taught.json("versions", "list", "alice"))


def test_export_writes_a_zip_and_never_over_a_file(taught, fails, tmp_path):
    target = tmp_path / "alice.zip"
    taught.run("versions", "export", "alice", str(target))
    with zipfile.ZipFile(target) as archive:
        assert sum(name.endswith("adapter_model.safetensors") for name in archive.namelist()) == 2
    before = target.read_bytes()
    assert "a file that does not exist yet" in fails("versions", "export", "alice", str(target))
    assert target.read_bytes() == before


def test_an_exported_folder_can_be_imported_for_another_user(taught, tmp_path):
    target = tmp_path / "alice.zip"
    taught.run("versions", "export", "alice", str(target))
    with zipfile.ZipFile(target) as archive:
        archive.extractall(tmp_path / "out")
    folder = sorted((tmp_path / "out").rglob("adapter_config.json"))[0].parent
    assert "head is version 1" in taught.run("versions", "import", "bob", str(folder))
    assert [version["origin"] for version in taught.json("versions", "list", "bob")] == ["import"]


def test_one_version_goes_out_and_comes_in_as_a_zip(taught, tmp_path):
    target = tmp_path / "v1.zip"
    taught.run("versions", "export", "alice", str(target), "--version", "1")
    with zipfile.ZipFile(target) as archive:
        assert "adapter_model.safetensors" in archive.namelist()
    assert "head is version 3" in taught.run("versions", "import", "alice", str(target))
    digests = {version["number"]: version["digest"] for version in taught.json("versions", "list", "alice")}
    assert digests[3] == digests[1] != digests[2]


def test_a_folder_for_another_base_is_refused(taught, fails, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("personalize.backends.echo._WIDTH", 6)
        write_folder(tmp_path / "wide", "seed")
    assert fails("versions", "import", "alice", str(tmp_path / "wide")).startswith("error: adapter_mismatch: ")
    assert head(taught) == 2


def test_prune_says_what_it_removed(taught):
    pruned = taught.json("versions", "prune")
    assert set(pruned) == {"num_versions", "num_moments", "num_turns", "num_orphans", "num_bytes"}
    assert numbers(taught) == [1, 2]


def test_a_model_that_was_never_opened_here_is_refused(taught, fails):
    assert taught.json("versions", "list", "alice", "--model", "echo")
    assert "'other' was never opened" in fails("versions", "list", "alice", "--model", "other")


def test_a_folder_that_is_no_adapter_is_refused(taught, fails, tmp_path):
    (tmp_path / "empty").mkdir()
    assert fails("versions", "import", "alice", str(tmp_path / "empty")).startswith("error: adapter_corrupt: ")
    assert head(taught) == 2


def test_unknown_users_and_versions_are_one_line(taught, fails):
    assert fails("versions", "rollback", "alice", "9").startswith("error: not_found: ")
    assert fails("versions", "list", "nobody").startswith("error: not_found: ")


@pytest.mark.skipif(sys.platform == "darwin", reason="its file system takes names in UTF-8 only")
def test_a_file_may_have_a_name_that_is_not_utf8(taught, tmp_path):
    target = tmp_path / os.fsdecode(b"\xff.zip")
    assert "\ufffd.zip" in taught.run("versions", "export", "alice", str(target))
    assert zipfile.is_zipfile(target)
