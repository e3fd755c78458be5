"""Zip files on their way between a server and this machine's disk."""

import contextlib
import os
import secrets
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from personalize.errors import AdapterCorrupt, InvalidRequest, PersonalizeError, StorageUnavailable


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a file that becomes ``path`` when the block ends well, and is nothing otherwise; its owner's only.

    Raises:
        InvalidRequest: there is such a file.
        StorageUnavailable: it cannot be written.
    """
    if path.exists():
        raise InvalidRequest(f"to = {str(path)!r} is not allowed; allowed: a file that does not exist yet", param="to")
    temporary = path.with_name(f"{path.name}.new-{secrets.token_hex(8)}")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            yield file
        os.rename(temporary, path)
    except PersonalizeError:  # some are errors of the system by their class
        raise
    except OSError as error:
        raise StorageUnavailable(f"{path.name} cannot be written: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def zipped(source: Path) -> Iterator[BinaryIO]:
    """Yield a zip file of a PEFT folder's files, or ``source`` itself where it is a file.

    Raises:
        AdapterCorrupt: there is neither, or the folder holds something that is no plain file.
    """
    with contextlib.ExitStack() as stack:
        try:
            if source.is_file():
                file = stack.enter_context(open(source, "rb"))
            else:
                file = stack.enter_context(tempfile.TemporaryFile())
                _pack(source, file)
        except OSError as error:
            raise AdapterCorrupt(f"{source.name!r} cannot be read: {error.strerror}") from error
        file.seek(0)
        yield file


def _pack(folder: Path, file: BinaryIO) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive:
        for item in sorted(folder.iterdir()):
            if item.is_symlink() or not item.is_file():
                raise AdapterCorrupt(f"unexpected {item.name[:80]!r}; allowed: plain files")
            archive.write(item, item.name)
