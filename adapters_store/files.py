"""Small durable steps on local files."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adapters_store.crash import crash_point
from adapters_store.errors import InvalidValue, NotFound, StorageUnavailable, StoreFull

NAME = re.compile(r"(?:\.new-[0-9a-f]{32}|[A-Za-z0-9][A-Za-z0-9_@.\-]*)")
KEY = re.compile(rf"{NAME.pattern}(?:/{NAME.pattern})*")
FULL = (errno.ENOSPC, errno.EDQUOT)


def checked_key(key: str) -> str:
    """Return ``key`` if it is a relative path of plain names; nothing can lead out of the root."""
    if not KEY.fullmatch(key) or len(key) > 500:
        raise InvalidValue("key", key, "a relative path of server-made names")
    return key


def checked_stage(path: Path, root: Path) -> Path:
    """Return ``path`` if it is <root>/staging/<owner>/<id>."""
    inside = path.relative_to(root).parts if path.is_relative_to(root) else ()
    if len(inside) != 3 or inside[0] != "staging" or ".." in inside:
        raise InvalidValue("staged", str(path), "a folder that stage() gave")
    return path


@contextmanager
def storage_errors(missing: str | None = None) -> Iterator[None]:
    """Turn the system's errors into the store's: a full disk, a missing file (where that is expected), the rest."""
    try:
        yield
    except FileNotFoundError as error:
        if missing is not None:
            raise NotFound(f"no stored file {missing}") from error
        raise StorageUnavailable(f"a file is gone: {error}") from error
    except OSError as error:
        if error.errno in FULL:
            raise StoreFull(f"no space left for files: {error.strerror}") from error
        raise StorageUnavailable(f"the disk refuses to work: {error}") from error


def write_new(path: Path, data: bytes) -> None:
    """Create a file that must not exist yet, readable by its owner only, and sync it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        crash_point("file.written")
        os.fsync(file.fileno())
    crash_point("file.synced")


def sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fchmod(descriptor, 0o600)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files below a folder; 0 if there is nothing."""
    if path.is_dir() and not path.is_symlink():
        return sum(item.lstat().st_size for item in path.rglob("*") if not item.is_dir())
    return path.lstat().st_size if path.exists() else 0
