"""One contract for every kind of blobs."""

import os
import threading

import pytest

from adapters_store import LocalBlobs
from adapters_store.errors import InvalidValue, NotFound, StorageUnavailable, StoreFull


def staged(blobs, content=b"x"):
    folder = blobs.stage("0" * 32)
    (folder / "a.bin").write_bytes(content)
    return folder


def test_small_files(blobs):
    blobs.write("users/u/turns/t.json", b"data")
    assert blobs.read("users/u/turns/t.json") == b"data"
    assert blobs.path("users/u/turns/t.json").read_bytes() == b"data"
    assert blobs.delete("users/u/turns/t.json") == 4
    assert blobs.delete("users/u/turns/t.json") == 0
    for call in (blobs.read, blobs.path):
        with pytest.raises(NotFound):
            call("users/u/turns/t.json")


def test_folders(blobs):
    folder = staged(blobs)
    blobs.commit(folder, "users/u/versions/v")
    assert not folder.exists()
    assert sorted(os.listdir(blobs.path("users/u/versions/v"))) == ["a.bin"]
    assert [child.name for child in blobs.children("users/u")] == ["versions"]
    assert [child.key for child in blobs.children("users/u/versions")] == ["users/u/versions/v"]
    assert list(blobs.children("users/nobody")) == []
    assert blobs.delete("users/u") == 1
    with pytest.raises(NotFound):
        blobs.path("users/u/versions/v")


def test_a_local_copy_dies_with_its_blob(blobs):
    blobs.commit(staged(blobs), "users/u/versions/v")
    path = blobs.path("users/u/versions/v")
    assert blobs.path("users/u/versions/v") == path
    blobs.delete("users/u/versions/v")
    assert not path.exists()


@pytest.mark.parametrize(
    "key", ["", "/etc/passwd", "../x", "users/../../x", "users//x", "users/.", "a\\b/..", "users/.hidden", "a\0b"]
)
def test_no_key_leads_out(blobs, key):
    for call in (lambda: blobs.write(key, b""), lambda: blobs.path(key), lambda: blobs.delete(key)):
        with pytest.raises(InvalidValue):
            call()


def test_only_staged_folders_are_committed(blobs, tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(InvalidValue):
        blobs.commit(tmp_path / "mine", "users/u/versions/v")
    assert (tmp_path / "mine").exists()


def test_staged_folders_are_listed_for_the_sweeper(blobs):
    folder = staged(blobs)
    (owner,) = blobs.children("staging")
    (child,) = blobs.children(owner.key)
    assert child.name == folder.name
    blobs.delete(child.key)
    assert not folder.exists()


def test_threads_may_write_side_by_side(blobs):
    def work(number):
        for index in range(10):
            blobs.write(f"users/u/turns/{number}-{index}.json", b"x" * number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(blobs.children("users/u/turns"))) == 60
    assert blobs.delete("users") == 10 * sum(range(6))


def test_the_order_of_the_steps_on_disk(tmp_path, monkeypatch):
    """Sync the file, rename it, sync the folder: any other order loses something in a power cut."""
    blobs, steps = LocalBlobs(tmp_path / "files"), []
    blobs.write("users/u/turns/first.json", b"")
    names = {}
    real = {name: getattr(os, name) for name in ("open", "fsync", "rename")}

    def opened(path, *rest, **named):
        descriptor = real["open"](path, *rest, **named)
        names[descriptor] = os.path.basename(path).split("-")[0]
        return descriptor

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: (steps.append(f"sync {names[descriptor]}"), real["fsync"](descriptor))
    )
    monkeypatch.setattr(
        os, "rename", lambda a, b: (steps.append(f"rename {os.path.basename(b)}"), real["rename"](a, b))
    )
    blobs.write("users/u/turns/t.json", b"data")
    assert steps == ["sync .new", "rename t.json", "sync turns"]
    steps.clear()
    folder = staged(blobs)
    steps.clear()
    blobs.commit(folder, "users/u/turns/v")
    assert steps[0] == "sync a.bin" and steps[1].startswith("sync ") and steps[2:] == ["rename v", "sync turns"]


@pytest.mark.parametrize(("number", "error"), [(28, StoreFull), (122, StoreFull), (5, StorageUnavailable)])
@pytest.mark.parametrize("point", ["file.written", "file.synced", "file.renamed"])
def test_a_failing_disk_is_a_typed_error_and_leaves_no_torn_file(tmp_path, crash_hook, number, error, point):
    blobs = LocalBlobs(tmp_path / "files")

    def fail(name):
        if name == point:
            raise OSError(number, os.strerror(number))

    crash_hook(fail)
    with pytest.raises(error) as caught:
        blobs.write("users/u/turns/t.json", b"data")
    assert type(caught.value) is error
    left = [path for path in (tmp_path / "files").rglob("*") if path.is_file()]
    assert left == [] or (point == "file.renamed" and [path.read_bytes() for path in left] == [b"data"])


def test_the_free_share_is_measured_where_the_files_are(tmp_path):
    asked = []
    blobs = LocalBlobs(tmp_path / "files", disk_usage=lambda path: asked.append(path) or (200, 150, 50))
    assert blobs.free_fraction() == 0.25
    assert asked == [tmp_path / "files"]
