"""The header of a safetensors file, read without trusting it and without loading a tensor.

The format's own reader checks offsets and sizes; it does not check names, shapes against a purpose, or how much a
hostile file makes us allocate. Here the size is known before a byte is read, and every rule is a typed error.
"""

import json
import math
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters_store.errors import AdapterCorrupt

MAX_HEADER_BYTES = 16 * 2**20
MAX_TENSORS = 100_000
BYTES_OF = {"F32": 4, "BF16": 2, "F16": 2, "F64": 8, "I64": 8, "I32": 4, "U8": 1, "I8": 1, "I16": 2, "BOOL": 1}


@dataclass(frozen=True, slots=True)
class TensorInfo:
    dtype: str
    shape: tuple[int, ...]


def read_header(path: Path, max_bytes: int) -> dict[str, TensorInfo]:
    """Return name -> dtype and shape of every tensor.

    Raises:
        AdapterCorrupt: not a regular file, too large, or not whole: the tensors must fill it without hole or overlap.
    """
    descriptor = open_regular(path, max_bytes)
    with open(descriptor, "rb") as file:
        num_bytes = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if num_bytes < 10 or not 2 <= length <= min(MAX_HEADER_BYTES, num_bytes - 8):
            raise AdapterCorrupt(f"{path.name}: header of {length} bytes in a file of {num_bytes}")
        header = parse_json(path.name, file.read(length))
    return _checked_layout(path.name, header, num_bytes - 8 - length)


def open_regular(path: Path, max_bytes: int) -> int:
    """Return a descriptor of a regular file of at most ``max_bytes``; links and devices are refused."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise AdapterCorrupt(f"{path.name} cannot be opened: {error.strerror}") from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size > max_bytes:
        os.close(descriptor)
        raise AdapterCorrupt(f"{path.name}: {status.st_size} bytes; allowed: a regular file up to {max_bytes} bytes")
    return descriptor


def parse_json(name: str, data: bytes) -> dict[str, Any]:
    """Return the JSON object in ``data``; refuses repeated keys, NaN and nesting that exhausts the parser."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise ValueError("a key occurs twice")
        return dict(pairs)

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=unique, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise AdapterCorrupt(f"{name} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise AdapterCorrupt(f"{name} holds no JSON object")
    return value


def _checked_layout(name: str, header: dict[str, Any], data_bytes: int) -> dict[str, TensorInfo]:
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise AdapterCorrupt(f"{name}: metadata must map text to text")
    if len(header) > MAX_TENSORS:
        raise AdapterCorrupt(f"{name}: {len(header)} tensors; allowed: up to {MAX_TENSORS}")
    spans = sorted((_span(name, key, value) for key, value in header.items()), key=lambda span: span[:2])
    end = 0
    for begin, stop, key, _ in spans:
        if begin != end:
            raise AdapterCorrupt(f"{name}: tensor {_short(key)} begins at {begin}, expected {end}")
        end = stop
    if end != data_bytes:
        raise AdapterCorrupt(f"{name}: tensors end at {end}, the data has {data_bytes} bytes")
    return {key: info for _, _, key, info in spans}


def _span(name: str, key: str, value: Any) -> tuple[int, int, str, TensorInfo]:
    """Return where a tensor lies, and what it is; its size must follow from its shape."""
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise AdapterCorrupt(f"{name}: tensor {_short(key)} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BYTES_OF:
        raise AdapterCorrupt(f"{name}: tensor {_short(key)} has dtype {_short(str(dtype))}")
    if not _naturals(shape) or len(shape) > 8 or not _naturals(offsets) or len(offsets) != 2:
        raise AdapterCorrupt(f"{name}: tensor {_short(key)} has no plain shape and offsets")
    begin, end = offsets
    if end - begin != math.prod(shape) * BYTES_OF[dtype]:
        raise AdapterCorrupt(f"{name}: tensor {_short(key)} has {end - begin} bytes, its shape says otherwise")
    return begin, end, key, TensorInfo(dtype, tuple(shape))


def _naturals(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**48 for item in value)


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
