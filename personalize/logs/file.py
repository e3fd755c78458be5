"""A log as a file: which bytes it was read from."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from personalize.errors import InvalidParameter

CHUNK_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class LogFile:
    """A file and what was in it; two that are equal have the same content.

    Attributes:
        digest: SHA-256 of its bytes, hex.
    """

    path: Path
    digest: str
    num_bytes: int

    @classmethod
    def of(cls, path: Path) -> "LogFile":
        """Read the file once from end to end.

        Raises:
            InvalidParameter: it cannot be read.
        """
        digest, num_bytes = hashlib.sha256(), 0
        try:
            with open(path, "rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    digest.update(chunk)
                    num_bytes += len(chunk)
        except OSError as error:
            raise InvalidParameter("log", str(path), f"a readable file of JSON lines ({error.strerror})") from error
        return cls(path, digest.hexdigest(), num_bytes)
