"""Files behind the store: the protocol, and a local folder that speaks it.

A key is a relative path of server-made names. Small files and folders are written once and never changed.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from adapters_store.crash import crash_point
from adapters_store.errors import NotFound
from adapters_store.files import (
    NAME,
    checked_key,
    checked_stage,
    size_of,
    storage_errors,
    sync_directory,
    sync_file,
    write_new,
)
from adapters_store.ids import new_id


@dataclass(frozen=True, slots=True)
class Blob:
    """One direct child of a folder of keys; ``modified_s`` is seconds since 1970."""

    key: str
    modified_s: float

    @property
    def name(self) -> str:
        return self.key.rpartition("/")[2]


class BlobStore(Protocol):
    """Where files live. Every method may raise StoreFull or StorageUnavailable."""

    def write(self, key: str, data: bytes) -> None:
        """Store one small file durably, whole or not at all; what was stored under the key before is replaced."""
        ...

    def read(self, key: str) -> bytes:
        """Return a small file; NotFound if it is not there."""
        ...

    def stage(self, owner: str) -> Path:
        """Return a new empty local folder for a version in the making."""
        ...

    def check_staged(self, staged: Path) -> None:
        """Raise InvalidValue if ``stage`` did not give this folder."""
        ...

    def discard(self, staged: Path) -> None:
        """Delete a staged folder; one that is gone already is no error."""
        ...

    def commit(self, staged: Path, key: str) -> None:
        """Store a staged folder durably under ``key``, all or nothing."""
        ...

    def path(self, key: str) -> Path:
        """Return a local path of a committed file or folder; NotFound if it is not there."""
        ...

    def children(self, key: str) -> Iterator[Blob]:
        """Yield what lies directly under ``key`` and has a name that the store could have given."""
        ...

    def delete(self, key: str) -> int:
        """Delete a file or a whole folder of keys; return its bytes, 0 if it was not there."""
        ...

    def free_fraction(self) -> float:
        """Return the free share of the space under the files, 0 to 1."""
        ...


class LocalBlobs:
    """Blobs in a folder of the local disk.

    Writing: exclusive create (mode 0600) under a temporary name, sync, rename, sync of the folder. A crash leaves
    at most a temporary name or a whole file that no row knows; the sweeper removes both.

    Args:
        root: folder that holds everything; made if missing, mode 0700.
        disk_usage: as ``shutil.disk_usage``.
    """

    def __init__(self, root: Path | str, disk_usage: Callable[[Path], tuple[int, int, int]] = shutil.disk_usage):
        self.root = Path(root).absolute()
        self._disk_usage = disk_usage
        with storage_errors():
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)

    def write(self, key: str, data: bytes) -> None:
        target = self._locate(key)
        with storage_errors():
            self._make(target.parent)
            temporary = target.with_name(f".new-{new_id()}")
            try:
                write_new(temporary, data)
                os.rename(temporary, target)
                crash_point("file.renamed")
                sync_directory(target.parent)
                crash_point("file.directory_synced")
            except OSError:
                temporary.unlink(missing_ok=True)
                raise

    def read(self, key: str) -> bytes:
        with storage_errors(missing=key):
            return self._locate(key).read_bytes()

    def stage(self, owner: str) -> Path:
        folder = self._locate(f"staging/{owner}/{new_id()}")
        with storage_errors():
            self._make(folder.parent)
            folder.mkdir(mode=0o700)
        return folder

    def check_staged(self, staged: Path) -> None:
        checked_stage(staged, self.root)

    def discard(self, staged: Path) -> None:
        shutil.rmtree(checked_stage(staged, self.root), ignore_errors=True)

    def commit(self, staged: Path, key: str) -> None:
        target = self._locate(key)
        checked_stage(staged, self.root)
        with storage_errors():
            for file in sorted(staged.iterdir()):
                sync_file(file)
            sync_directory(staged)
            crash_point("folder.files_synced")
            self._make(target.parent)
            os.rename(staged, target)
            crash_point("folder.renamed")
            sync_directory(target.parent)
            crash_point("folder.directory_synced")

    def path(self, key: str) -> Path:
        target = self._locate(key)
        if not target.exists():
            raise NotFound(f"no stored file {key}")
        return target

    def children(self, key: str) -> Iterator[Blob]:
        folder = self._locate(key)
        with storage_errors():
            entries = list(os.scandir(folder)) if folder.is_dir() else []
        for entry in entries:
            if not NAME.fullmatch(entry.name):
                continue
            try:
                yield Blob(f"{key}/{entry.name}", entry.stat(follow_symlinks=False).st_mtime)
            except FileNotFoundError:  # deleted since the listing
                continue

    def delete(self, key: str) -> int:
        target = self._locate(key)
        with storage_errors():
            num_bytes = size_of(target)
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)
            if target.parent.is_dir():
                sync_directory(target.parent)
        return num_bytes

    def free_fraction(self) -> float:
        with storage_errors():
            total, _, free = self._disk_usage(self.root)
        return free / total if total else 0.0

    def _locate(self, key: str) -> Path:
        return self.root.joinpath(checked_key(key))

    def _make(self, folder: Path) -> None:
        """Create a folder and make its name durable, with every missing parent's."""
        if folder.is_dir():
            return
        self._make(folder.parent)
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            return
        sync_directory(folder.parent)
