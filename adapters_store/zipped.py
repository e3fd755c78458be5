"""Zip files of adapter folders: made, and read as if a stranger had made them.

Before a byte is unpacked: names from a fixed set, plain files only, sizes bounded, two ways of compression, a short
directory. So no entry can lead out of the folder, and none can grow beyond its bound.
"""

import errno
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from adapters_store.errors import AdapterCorrupt
from adapters_store.folder import CONFIG, KNOWN_FILES, MAX_CONFIG_BYTES, WEIGHTS
from adapters_store.header import open_regular

EARLIEST = (1980, 1, 1, 0, 0, 0)  # zip's own; real times stand in the JSON
MAX_DIRECTORY_BYTES = 16 * 2**10
CHUNK_BYTES = 2**20
_END = struct.Struct("<4s4H2LH")  # the end record of a zip file without a comment
_ZIP64_LOCATOR_BYTES = 20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, struct.error)


def pack(folder: Path, to: Path) -> None:
    """Write a zip file of a folder's files, readable by its owner only; it must not exist yet."""
    descriptor = os.open(to, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w+b") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        add_folder(archive, folder)


def add_folder(archive: zipfile.ZipFile, folder: Path, under: str = "") -> None:
    """Add a folder's files, in the order of their names; equal folders give equal bytes."""
    for item in sorted(folder.iterdir()):
        entry = zipfile.ZipInfo(f"{under}{item.name}", EARLIEST)
        entry.compress_type = zipfile.ZIP_DEFLATED
        with open(item, "rb") as source, archive.open(entry, "w", force_zip64=True) as target:
            while chunk := source.read(CHUNK_BYTES):
                target.write(chunk)


def unpack(archive: Path, into: Path, max_bytes: int) -> None:
    """Write the configuration and the weights of a zipped adapter folder into a folder.

    Args:
        max_bytes: of the zip file, and of the weights once they are unpacked.

    Raises:
        AdapterCorrupt: no zip file, or one that a folder of ours could not have made.
    """
    with open(open_regular(archive, max_bytes), "rb") as file:
        _check_directory(file)
        try:
            packed = zipfile.ZipFile(file)
        except _BROKEN as error:
            raise _broken(error) from error
        with packed:
            _check_entries(packed.infolist(), max_bytes)
            for name in (CONFIG, WEIGHTS):
                with open(os.open(into / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as target:
                    for chunk in _content(packed, name):
                        target.write(chunk)


def _check_directory(file) -> None:
    """Refuse a directory that is too long to be parsed at leisure, before anything parses it."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _END.size))
    tail = file.read()
    if len(tail) < _END.size or tail[:4] != b"PK\x05\x06" or tail[-2:] != b"\0\0":
        raise AdapterCorrupt("this is no zip file, or one with a comment behind it")
    num_bytes = _END.unpack(tail)[5]
    if num_bytes > MAX_DIRECTORY_BYTES:
        raise AdapterCorrupt(f"the zip file has a directory of {num_bytes} bytes; allowed: {MAX_DIRECTORY_BYTES}")
    file.seek(max(0, size - _END.size - _ZIP64_LOCATOR_BYTES))
    if file.read(4) == b"PK\x06\x07":
        raise AdapterCorrupt("the zip file is in the form for more than 2 GiB; allowed: less, or the folder itself")
    file.seek(0)


def _check_entries(entries: list[zipfile.ZipInfo], max_bytes: int) -> None:
    seen: set[str] = set()
    for entry in entries:
        name, mode = entry.filename, entry.external_attr >> 16
        if name not in KNOWN_FILES or (stat.S_IFMT(mode) and not stat.S_ISREG(mode)):
            raise AdapterCorrupt(f"unexpected {name[:80]!r}; allowed: plain files named {sorted(KNOWN_FILES)}")
        if name in seen:
            raise AdapterCorrupt(f"{name} occurs twice")
        seen.add(name)
        limit = MAX_CONFIG_BYTES if name == CONFIG else max_bytes
        if entry.file_size > limit:
            raise AdapterCorrupt(f"{name}: {entry.file_size} bytes; allowed: up to {limit} bytes")
        if entry.flag_bits & 1 or entry.compress_type not in _METHODS:
            raise AdapterCorrupt(f"{name} is encrypted or packed by another method; allowed: stored, deflated")
    for name in (CONFIG, WEIGHTS):
        if name not in seen:
            raise AdapterCorrupt(f"{name} is missing")


def _content(packed: zipfile.ZipFile, name: str) -> Iterator[bytes]:
    """Yield an entry's bytes: never more than its directory line says, and all of them by their checksum."""
    try:
        with packed.open(name) as source:
            while chunk := source.read(CHUNK_BYTES):
                yield chunk
    except OSError as error:
        if error.errno != errno.EINVAL:  # an offset before the file's beginning
            raise
        raise _broken(error) from error
    except _BROKEN as error:
        raise _broken(error) from error


def _broken(error: Exception) -> AdapterCorrupt:
    return AdapterCorrupt(f"the zip file is damaged ({type(error).__name__})")
