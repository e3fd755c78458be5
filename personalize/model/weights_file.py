"""Reading a safetensors file that a stranger may have written: sizes before bytes, the header before the tensors."""

import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from personalize.errors import AdapterCorrupt, AdapterMismatch

_MAX_HEADER_BYTES = 16 << 20
_DTYPES = {"F32": 4, "F16": 2, "BF16": 2}


def read_weights(
    path: Path, expected: Mapping[str, list[int]], begin: Callable[[bytes], None] = lambda content: None
) -> bytes:
    """Return the file's bytes once its size and header are exactly what ``expected`` implies.

    Args:
        expected: key -> shape of every tensor.
        begin: called with the bytes as soon as they are there.

    Raises:
        AdapterCorrupt: unreadable, or no safetensors file.
        AdapterMismatch: other keys, shapes or types than expected.
    """
    num_values = sum(shape[0] * shape[1] for shape in expected.values())
    content = read_bounded(path, 4 * num_values + _MAX_HEADER_BYTES)
    begin(content)
    header = _header(content, path)
    missing, extra = expected.keys() - header.keys(), header.keys() - expected.keys()
    if missing or extra:
        example = min(missing or extra)
        raise AdapterMismatch(
            f"{path.parent.name}: {len(missing)} tensors missing, {len(extra)} unknown, such as {example}"
        )
    num_bytes = 0
    for key, shape in expected.items():
        num_bytes += _check_entry(key, header[key], shape, path)
    start = 8 + struct.unpack("<Q", content[:8])[0]
    if len(content) != start + num_bytes:
        raise AdapterCorrupt(f"{path.parent.name}/{path.name}: {len(content)} bytes, expected {start + num_bytes}")
    return content


def _check_entry(key: str, entry: Any, shape: list[int], path: Path) -> int:
    if not isinstance(entry, dict) or entry.get("dtype") not in _DTYPES:
        found = entry.get("dtype") if isinstance(entry, dict) else entry
        raise AdapterMismatch(f"{path.parent.name}: {key} has type {found!r}; expected one of {', '.join(_DTYPES)}")
    if entry.get("shape") != shape:
        raise AdapterMismatch(f"{path.parent.name}: {key} has shape {entry.get('shape')}, expected {shape}")
    return shape[0] * shape[1] * _DTYPES[entry["dtype"]]


def _header(content: bytes, path: Path) -> dict[str, Any]:
    try:
        (length,) = struct.unpack("<Q", content[:8])
        if not 2 <= length <= min(_MAX_HEADER_BYTES, len(content) - 8):
            raise ValueError(f"a header of {length} bytes")
        header = json.loads(content[8 : 8 + length])
    except (struct.error, ValueError, RecursionError) as error:
        raise AdapterCorrupt(f"{path.parent.name}/{path.name} is not a safetensors file: {error}") from error
    if not isinstance(header, dict):
        raise AdapterCorrupt(f"{path.parent.name}/{path.name}: the header is no object")
    return {key: value for key, value in header.items() if key != "__metadata__"}


def read_bounded(path: Path, limit: int) -> bytes:
    """Return the content of a regular file of at most ``limit`` bytes; nothing is read of a larger one."""
    try:
        size = path.stat().st_size
        if not path.is_file() or size > limit:
            raise AdapterCorrupt(f"{path.parent.name}/{path.name}: {size} bytes; expected a file of at most {limit}")
        with path.open("rb") as file:
            return file.read(limit + 1)
    except OSError as error:
        raise AdapterCorrupt(f"{path.parent.name}/{path.name} cannot be read: {error.strerror}") from error
