"""Zip files of adapter folders: a way there and back, and what a stranger may send."""

import io
import json
import os
import stat
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from adapters_store.errors import AdapterCorrupt, AdapterMismatch, InvalidValue, NotFound
from adapters_store.folder import CONFIG, MANIFEST, WEIGHTS, folder_digest

MODULES = {"model.layers.0.q_proj": (6, 4)}
LIMIT = 1 << 20


@pytest.fixture
def good(adapter, tmp_path) -> dict[str, bytes]:
    """The files of a sound folder."""
    return {file.name: file.read_bytes() for file in adapter(tmp_path / "good").iterdir()}


def zip_of(*entries: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return file.getvalue()


def test_an_exported_version_comes_back_bit_for_bit(hand, tmp_path):
    ann, bob = hand.user("ann"), hand.user("bob")
    hand.publish(ann)
    version = hand.publish(ann)
    target = tmp_path / "v.zip"
    hand.store.export_version(ann.user_id, version.number, target)
    assert target.stat().st_mode & 0o077 == 0
    with zipfile.ZipFile(target) as archive:
        assert archive.namelist() == sorted([CONFIG, WEIGHTS, MANIFEST])
        archive.extractall(tmp_path / "out")
    assert folder_digest(tmp_path / "out") == version.digest
    taken = hand.store.import_version(bob.user_id, target, hand.base, MODULES, max_rank=2)
    assert (taken.digest, taken.number, taken.origin) == (version.digest, 1, "import")
    assert hand.store.head(bob.user_id, hand.base) == taken
    actions = [line.action for line in hand.store.audit_log()]
    assert "version.export" in actions and "version.import" in actions


def test_what_cannot_be_exported(hand, tmp_path):
    user = hand.user()
    version = hand.publish(user)
    with pytest.raises(NotFound):
        hand.store.export_version(user.user_id, 9, tmp_path / "v.zip")
    with pytest.raises(NotFound):
        hand.store.export_version("0" * 32, 1, tmp_path / "v.zip")
    assert not (tmp_path / "v.zip").exists()
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(InvalidValue, match="does not exist yet"):
        hand.store.export_version(user.user_id, version.number, tmp_path / "mine")
    assert (tmp_path / "mine").read_text() == "mine"


def link(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


def encrypted(files: dict[str, bytes]) -> bytes:
    """Set the flag of an encrypted entry in every header."""
    raw = bytearray(zip_of(*files.items()))
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = -1
        while (at := raw.find(mark, at + 1)) >= 0:
            raw[at + offset] |= 1
    return bytes(raw)


def lying(files: dict[str, bytes]) -> bytes:
    """Say in the directory that the weights are shorter than they are."""
    raw = bytearray(zip_of(*files.items()))
    at = raw.find(b"PK\x01\x02", raw.find(b"PK\x01\x02") + 1)
    raw[at + 24 : at + 28] = struct.pack("<I", 50)
    return bytes(raw)


def many(files: dict[str, bytes]) -> bytes:
    return zip_of(*files.items(), *((f"{i:05}", b"") for i in range(2000)))


HOSTILE: dict[str, tuple[Callable[[dict[str, bytes]], bytes], str]] = {
    "nothing": (lambda files: b"", "no zip file"),
    "text": (lambda files: b"hello" * 100, "no zip file"),
    "half": (lambda files: zip_of(*files.items())[:300], "no zip file"),
    "cut in front": (lambda files: zip_of(*files.items())[100:], "damaged"),
    "bytes behind": (lambda files: zip_of(*files.items()) + b"x", "no zip file"),
    "empty": (lambda files: zip_of(), "adapter_config.json is missing"),
    "no weights": (lambda files: zip_of((CONFIG, files[CONFIG])), "safetensors is missing"),
    "climbs": (lambda files: zip_of(*files.items(), ("../evil", b"x")), "unexpected"),
    "climbs as a known file": (lambda files: zip_of(*files.items(), (f"../{CONFIG}", b"x")), "unexpected"),
    "absolute": (lambda files: zip_of(*files.items(), ("/evil", b"x")), "unexpected"),
    "backslash": (lambda files: zip_of(*files.items(), ("..\\evil", b"x")), "unexpected"),
    "a folder": (lambda files: zip_of(*files.items(), ("more/", b"")), "unexpected"),
    "inside a folder": (lambda files: zip_of(*((f"a/{n}", c) for n, c in files.items())), "unexpected"),
    "a pickle": (lambda files: zip_of(*files.items(), ("adapter_model.bin", b"x")), "unexpected"),
    "a link": (lambda files: zip_of((CONFIG, files[CONFIG]), (link(WEIGHTS), b"../../passwords")), "unexpected"),
    "bomb": (lambda files: zip_of((CONFIG, files[CONFIG]), (WEIGHTS, bytes(LIMIT + 1))), "allowed: up to"),
    "bomb of text": (lambda files: zip_of((CONFIG, b" " * (2 << 20)), (WEIGHTS, files[WEIGHTS])), "allowed: up to"),
    "lying sizes": (lying, "damaged"),
    "encrypted": (encrypted, "encrypted"),
    "another method": (lambda files: zip_of(*files.items(), method=zipfile.ZIP_LZMA), "another method"),
    "many entries": (many, "directory"),
    "changed bytes": (lambda files: zip_of(*files.items(), method=0).replace(b'"LORA"', b'"LOLA"'), "damaged"),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", [*HOSTILE, "twice"])
def test_hostile_archives_leave_nothing_behind(local, good, tmp_path, name):
    user = local.user()
    before_head = local.publish(user)
    build, words = HOSTILE.get(name, (lambda files: zip_of(*files.items(), *files.items()), "twice"))
    (tmp_path / "in.zip").write_bytes(build(good))
    files = {file: file.read_bytes() for file in local.files_beside_the_index()}
    with pytest.raises(AdapterCorrupt, match=words):
        local.store.import_version(user.user_id, tmp_path / "in.zip", local.base, MODULES, max_bytes=LIMIT)
    assert local.store.head(user.user_id, local.base) == before_head
    assert not list(local.home.rglob("staging/*/*"))
    assert {file: file.read_bytes() for file in local.files_beside_the_index()} == files
    assert not (tmp_path / "evil").exists() and not Path("/evil").exists()


def test_a_directory_of_millions_is_refused_unread(local, tmp_path):
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 40 << 20, 0, 0)
    (tmp_path / "in.zip").write_bytes(bytes(40 << 20) + end)
    tracemalloc.start()
    with pytest.raises(AdapterCorrupt, match="directory of"):
        local.store.import_version(local.user().user_id, tmp_path / "in.zip", local.base)
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


def test_an_archive_over_the_limit_and_a_link_to_one(local, good, tmp_path):
    user = local.user()
    archive = tmp_path / "in.zip"
    archive.write_bytes(zip_of(*good.items()))
    with pytest.raises(AdapterCorrupt, match="up to 100 bytes"):
        local.store.import_version(user.user_id, archive, local.base, max_bytes=100)
    os.symlink(archive, tmp_path / "link.zip")
    with pytest.raises(AdapterCorrupt, match="cannot be opened"):
        local.store.import_version(user.user_id, tmp_path / "link.zip", local.base)
    assert local.store.import_version(user.user_id, archive, local.base).number == 1


def test_moments_and_readme_may_lie_in_it_and_are_not_taken_over(local, good, tmp_path):
    archive = tmp_path / "in.zip"
    archive.write_bytes(zip_of(*good.items(), ("README.md", b"by PEFT"), ("optimizer.safetensors", b"no tensors")))
    version = local.store.import_version(local.user().user_id, archive, local.base, MODULES)
    assert version.moments_digest is None
    assert {file.name for file in local.store.path(version).iterdir()} == {CONFIG, WEIGHTS, MANIFEST}


@pytest.mark.parametrize(
    ("expected", "max_rank", "words"),
    [
        ({}, None, "no module"),
        ({"model.layers.0.q_proj": (6, 5)}, None, r"\(6, 4\) in the adapter, \(6, 5\) in the base"),
        ({**MODULES, "model.layers.1.q_proj": (6, 4)}, None, "layers.1.q_proj.*no tensors"),
        (MODULES, 1, "r = 2; allowed here: 1 to 1"),
    ],
)
def test_a_folder_that_this_base_does_not_take(local, good, tmp_path, adapter, expected, max_rank, words):
    """A folder for a base of fewer layers fits module by module; what it lacks gives it away."""
    (tmp_path / "in.zip").write_bytes(zip_of(*good.items()))
    user = local.user()
    for source in (tmp_path / "in.zip", tmp_path / "good"):
        with pytest.raises(AdapterMismatch, match=words):
            local.store.import_version(user.user_id, source, local.base, expected, max_rank=max_rank)
    assert local.store.versions(user.user_id) == [] and not list(local.home.rglob("staging/*/*"))


@pytest.mark.parametrize(("targets", "words"), [(".*", "'all-linear' or a list"), (["q_proj", "k_proj"], "'k_proj'")])
def test_targets_that_the_base_cannot_follow(local, adapter, tmp_path, targets, words):
    folder = adapter(tmp_path / "odd", config={"target_modules": targets})
    with pytest.raises(AdapterMismatch, match=words):
        local.store.import_version(local.user().user_id, folder, local.base, MODULES)


@pytest.mark.parametrize("targets", ["all-linear", ["model.layers.0.q_proj"], ["layers.0.q_proj", "q_proj"]])
def test_targets_that_name_every_tensor(local, adapter, tmp_path, targets):
    folder = adapter(tmp_path / "fine", config={"target_modules": targets})
    assert json.loads((folder / CONFIG).read_text())["target_modules"] == targets
    assert local.store.import_version(local.user().user_id, folder, local.base, MODULES).number == 1
