"""The measurements of one file: JSON lines, each under a key of its own, appended as they are made."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from personalize.errors import InvalidParameter

KEY = ("recipe", "model", "arm", "control", "profile", "seed", "turn")
Line = dict[str, Any]


class Results:
    """What has been measured so far.

    Args:
        path: the file; it need not exist. A last line that an interruption has torn is cut off.

    Raises:
        InvalidParameter: another line is no JSON object with a whole key.
    """

    def __init__(self, path: Path):
        self.path = path
        self.lines: list[Line] = _read(path)
        self._keys = {_key(line) for line in self.lines}

    def has(self, key: Mapping[str, Any]) -> bool:
        """Tell whether the measurement with this key is there."""
        return _key(key) in self._keys

    def add(self, line: Line) -> None:
        """Append one measurement; one whose key is there already is not measured anew, so it is refused."""
        if self.has(line):
            raise InvalidParameter("measurement", _key(line), "a key that has no measurement yet")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
        self.lines.append(line)
        self._keys.add(_key(line))


def _key(line: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(line[name] for name in KEY)


def _read(path: Path) -> list[Line]:
    if not path.is_file():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        path.write_bytes(whole)
    return [_parse(path, number, text) for number, text in enumerate(whole.decode("utf-8").splitlines(), 1)]


def _parse(path: Path, number: int, text: str) -> Line:
    try:
        line = json.loads(text)
        _key(line)
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidParameter(f"{path.name}:{number}", text[:80], f"a JSON object with {', '.join(KEY)}") from error
    return line
