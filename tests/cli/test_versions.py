"""``personalize versions``."""

import zipfile


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


def test_a_folder_that_is_no_adapter_is_refused(taught, fails, tmp_path):
    (tmp_path / "empty").mkdir()
    assert fails("versions", "import", "alice", str(tmp_path / "empty")).startswith("error: adapter_corrupt: ")
    assert head(taught) == 2


def test_unknown_users_and_versions_are_one_line(taught, fails):
    assert fails("versions", "rollback", "alice", "9").startswith("error: not_found: ")
    assert fails("versions", "list", "nobody").startswith("error: not_found: ")
