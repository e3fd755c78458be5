"""The figures that commands measure, kept as JSON under docs/figures, one file per area.

A file is a list of objects with the fields of ``Figure``. A later measurement of the same figure on the same device
replaces the earlier one, so the files show the last state and the repository's history shows how it came about.
"""

import json
import math
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from personalize.errors import InvalidParameter

GOAL = re.compile(r"(?P<sign>≤|≥|<|>|=) (?P<limit>-?\d+(\.\d+)?(e-?\d+)?)")
AREA = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number.

    Attributes:
        figure: what was measured; unique per device within its area.
        value: the number; None where it could not be measured, then ``reason`` says why.
        unit: ``share``, ``ms``, ``x``, …; empty for a plain yes or no.
        goal: ``<sign> <number>`` with one of ≤ ≥ < > =, in the same unit; None for a number without a goal.
        met: whether the goal holds; None without a value or without a goal.
        device: what it ran on, in words.
        n: measurements behind the value.
        date: day of the measurement, ``YYYY-MM-DD``.
        command: what repeats the measurement.
        reason: why ``value`` is None, or a remark.
    """

    figure: str
    value: float | None
    unit: str
    goal: str | None
    met: bool | None
    device: str
    n: int | None
    date: str
    command: str
    reason: str | None = None

    def __post_init__(self):
        _check(self)

    @property
    def shortfall(self) -> float | None:
        """How far the value is from its goal, in ``unit``; 0 when met, None when there is nothing to compare."""
        if self.value is None or self.goal is None:
            return None
        return 0.0 if self.met else abs(self.value - _limit(self.goal))


def measured(
    figure: str,
    value: float | None,
    *,
    unit: str,
    command: str,
    device: str,
    goal: str | None = None,
    n: int | None = None,
    reason: str | None = None,
) -> Figure:
    """Return today's figure, with ``met`` derived from the value and the goal; True and False count as 1 and 0."""
    value = None if value is None else _number(float(value))
    goal = _spelled(goal)
    met = None if value is None or goal is None else _holds(value, goal)
    today = time.strftime("%Y-%m-%d", time.gmtime())
    return Figure(figure, value, unit, goal, met, device, n, today, command, reason)


def record(area: str, rows: Iterable[Figure | Mapping[str, Any]], root: Path | str = ".") -> Path:
    """Merge figures into ``<root>/docs/figures/<area>.json`` by (figure, device) and return the file's path.

    Raises:
        InvalidParameter: the area's name or a row does not have the declared form; the file is left as it was.
    """
    if not AREA.fullmatch(area):
        raise InvalidParameter("area", area, "a lower-case name such as 'loop'")
    path = Path(root) / "docs" / "figures" / f"{area}.json"
    merged = {(row.figure, row.device): row for row in (load(path) if path.exists() else ())}
    for row in rows:
        row = row if isinstance(row, Figure) else parse(row)
        merged[row.figure, row.device] = row
    _write(path, list(merged.values()))
    return path


def load(path: Path) -> list[Figure]:
    """Return the figures of one file.

    Raises:
        InvalidParameter: the file is no list of figures.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidParameter(path.name, str(error), "a JSON list of figures") from error
    if not isinstance(rows, list):
        raise InvalidParameter(path.name, type(rows).__name__, "a JSON list of figures")
    return [parse(row) for row in rows]


def parse(row: Mapping[str, Any]) -> Figure:
    """Return the figure that a JSON object describes.

    Raises:
        InvalidParameter: a field is missing, unknown, of the wrong type, or contradicts another.
    """
    names = {field.name for field in fields(Figure)}
    if not isinstance(row, Mapping) or set(row) - names or names - set(row) - {"reason"}:
        raise InvalidParameter("figure", row, f"an object with exactly {sorted(names)}")
    row = {**row, "value": _number(row["value"]), "goal": _spelled(row["goal"])}
    return Figure(**row)


def _number(value: Any) -> Any:
    """True and False as 1 and 0; whole floats as integers."""
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        return int(value)
    return value


def _spelled(goal: Any) -> Any:
    """``<= 0.1`` and ``>= True`` in the one spelling that is stored."""
    if not isinstance(goal, str):
        return goal
    return goal.replace("<=", "≤").replace(">=", "≥").replace("True", "1").replace("False", "0")


def _check(row: Figure) -> None:
    for name in ("figure", "device", "command"):
        value = getattr(row, name)
        if not isinstance(value, str) or not value.strip():
            raise InvalidParameter(name, value, "a non-empty string")
    if row.value is not None and (isinstance(row.value, bool) or not isinstance(row.value, int | float)):
        raise InvalidParameter("value", row.value, "a number or null")
    if row.value is not None and not math.isfinite(row.value):
        raise InvalidParameter("value", row.value, "a finite number; null with a reason where there is none")
    if row.value is None and not row.reason:
        raise InvalidParameter("reason", row.reason, f"why {row.figure} has no value")
    if row.goal is not None and not GOAL.fullmatch(str(row.goal)):
        raise InvalidParameter("goal", row.goal, "null or a sign (≤ ≥ < > =), a space and a number")
    if row.n is not None and (isinstance(row.n, bool) or not isinstance(row.n, int) or row.n < 0):
        raise InvalidParameter("n", row.n, "null or a count")
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", str(row.date)):
        raise InvalidParameter("date", row.date, "YYYY-MM-DD")
    expected = None if row.value is None or row.goal is None else _holds(row.value, row.goal)
    if row.met != expected:
        raise InvalidParameter("met", row.met, f"{expected} for {row.value} against {row.goal}")


def _holds(value: float, goal: str) -> bool:
    if not (match := GOAL.fullmatch(goal)):
        raise InvalidParameter("goal", goal, "a sign (≤ ≥ < > =), a space and a number")
    limit = float(match["limit"])
    return {
        "≤": value <= limit,
        "≥": value >= limit,
        "<": value < limit,
        ">": value > limit,
        "=": value == limit,
    }[match["sign"]]


def _limit(goal: str) -> float:
    match = GOAL.fullmatch(goal)
    assert match, goal
    return float(match["limit"])


def _write(path: Path, rows: Sequence[Figure]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join("  " + json.dumps(asdict(row), ensure_ascii=False) for row in rows)
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    draft.write_text(f"[\n{lines}\n]\n" if rows else "[]\n", encoding="utf-8")
    draft.replace(path)
