"""Blobs in memory: the second backend, which keeps the protocol honest, and a fast one for tests."""

import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

from adapters_store.blobs import Blob
from adapters_store.crash import crash_point
from adapters_store.errors import NotFound
from adapters_store.files import checked_key, checked_stage, storage_errors, write_new
from adapters_store.ids import new_id


class MemoryBlobs:
    """Blobs in a dictionary; versions in the making and copies for readers lie in a temporary folder.

    Args:
        free: free share of the space, 0 to 1.
        clock: gives the times of writing.
    """

    def __init__(self, free: Callable[[], float] = lambda: 1.0, clock: Callable[[], float] = time.time):
        self._free = free
        self._clock = clock
        self._lock = threading.Lock()
        self._data: dict[str, tuple[bytes, float]] = {}
        self._local = Path(tempfile.mkdtemp(prefix="adapters-"))
        weakref.finalize(self, shutil.rmtree, self._local, ignore_errors=True)

    def write(self, key: str, data: bytes) -> None:
        with self._lock:
            self._data[checked_key(key)] = (data, self._clock())

    def read(self, key: str) -> bytes:
        with self._lock:
            if key not in self._data:
                raise NotFound(f"no stored file {key}")
            return self._data[key][0]

    def stage(self, owner: str) -> Path:
        folder = self._local / checked_key(f"staging/{owner}/{new_id()}")
        folder.mkdir(parents=True, mode=0o700)
        return folder

    def check_staged(self, staged: Path) -> None:
        checked_stage(staged, self._local)

    def discard(self, staged: Path) -> None:
        shutil.rmtree(checked_stage(staged, self._local), ignore_errors=True)

    def commit(self, staged: Path, key: str) -> None:
        checked_stage(staged, self._local)
        with storage_errors():
            files = {f"{checked_key(key)}/{file.name}": file.read_bytes() for file in staged.iterdir()}
        crash_point("folder.files_synced")
        with self._lock:
            self._data.update({name: (data, self._clock()) for name, data in files.items()})
        crash_point("folder.renamed")
        shutil.rmtree(staged)
        crash_point("folder.directory_synced")

    def path(self, key: str) -> Path:
        target = self._local / "cache" / checked_key(key)
        with self._lock:
            files = {name: data for name, (data, _) in self._data.items() if _inside(name, key)}
            if not files:
                raise NotFound(f"no stored file {key}")
            for name, data in files.items():
                self._copy(name, data)
        return target

    def _copy(self, name: str, data: bytes) -> None:
        copy = self._local / "cache" / name
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_new(copy, data)

    def children(self, key: str) -> Iterator[Blob]:
        with self._lock:
            newest: dict[str, float] = {}
            for name, (_, at) in self._data.items():
                if name.startswith(f"{key}/"):
                    child = f"{key}/{name[len(key) + 1 :].partition('/')[0]}"
                    newest[child] = max(at, newest.get(child, 0.0))
        folder = self._local / checked_key(key)  # staging lies on the local disk
        for item in folder.iterdir() if folder.is_dir() else ():
            newest[f"{key}/{item.name}"] = item.stat().st_mtime
        yield from (Blob(name, at) for name, at in newest.items())

    def delete(self, key: str) -> int:
        with self._lock:
            gone = [name for name in self._data if _inside(name, key)]
            num_bytes = sum(len(self._data.pop(name)[0]) for name in gone)
            for copy in (self._local / "cache" / checked_key(key), self._local / key):
                if copy.is_dir():
                    shutil.rmtree(copy, ignore_errors=True)
                else:
                    copy.unlink(missing_ok=True)
        return num_bytes

    def free_fraction(self) -> float:
        return self._free()


def _inside(name: str, key: str) -> bool:
    return name == key or name.startswith(f"{key}/")
