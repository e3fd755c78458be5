"""A log file, line by line: a conversation, or why there is none."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from personalize.errors import InvalidParameter, InvalidRequest
from personalize.logs import openai, sharegpt, wildchat
from personalize.logs.conversation import BrokenLine, LoggedConversation
from personalize.types import Message

MAX_LINE_BYTES = 64 * 2**20
Read = Callable[[Mapping[str, Any]], tuple[str | None, tuple[Message, ...]]]
SHAPES: dict[str, Read] = {shape.KEY: shape.read for shape in (openai, wildchat, sharegpt)}
"""A record's shape is known by the field that holds its messages; the first that is there counts."""


def read_log(path: Path) -> Iterator[LoggedConversation | BrokenLine]:
    """Yield every line of a JSON-lines file that is not blank; one line is in memory at a time.

    Raises:
        InvalidParameter: the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(_lines(file), start=1):
                if line is None or line.strip():
                    yield read_line(line, number, file.tell())
    except OSError as error:
        raise InvalidParameter("log", str(path), f"a readable file of JSON lines ({error.strerror})") from error


def read_line(line: bytes | None, number: int, end_bytes: int = 0) -> LoggedConversation | BrokenLine:
    """Return the conversation of one line; None stands for a line of more than ``MAX_LINE_BYTES``."""
    if line is None:
        return BrokenLine(number, end_bytes, f"longer than {MAX_LINE_BYTES} bytes")
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        return BrokenLine(number, end_bytes, f"no JSON in UTF-8: {error}")
    try:
        user, messages = _read(record)
    except InvalidRequest as error:
        return BrokenLine(number, end_bytes, error.message)
    return LoggedConversation(number, end_bytes, user, messages)


def _read(record: object) -> tuple[str | None, tuple[Message, ...]]:
    if not isinstance(record, dict):
        raise InvalidParameter("line", record, "one JSON object per line")
    for key, read in SHAPES.items():
        if key in record:
            return read(record)
    raise InvalidParameter("fields", sorted(map(str, record))[:8], f"one of {', '.join(SHAPES)}")


def _lines(file: BinaryIO) -> Iterator[bytes | None]:
    """Yield the lines; None for one that is too long, whose rest is passed over piece by piece."""
    while line := file.readline(MAX_LINE_BYTES + 1):
        if len(line) <= MAX_LINE_BYTES:
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE_BYTES)
        yield None
