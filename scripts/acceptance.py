"""The acceptance table: docs/acceptance.md as rows, and back.

A row maps one clause of the issue to what shows it. `shown by` holds back-quoted tokens: a test (`tests/a.py::test_b`),
a recorded figure (`figure:name`, `figure:name@device`, or `figure:start*` for the worst of several), or a command.
Everything outside the rows is kept as it is.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

ROW = re.compile(r"^\| (?P<id>\d+\.[\w-]+) \|(?P<rest>.*)\|\s*$")
TOKEN = re.compile(r"`([^`]+)`")
CLASSES = ("fast", "slow", "long", "gpu", "postgres")
"""Under a minute; a test over five seconds; minutes, by hand; depends on the device; needs TEST_POSTGRES_URL."""
EVERYWHERE = ("fast", "slow", "long")
"""Classes of rows that no missing device or database can excuse."""
RESULT = re.compile(r"missing|passed|failed|failed \(expected: .+\)|met .+|missed by .+|not run: .+")


@dataclass(frozen=True, slots=True)
class Row:
    """One clause.

    Attributes:
        shown_by: the cell's text with its back-quoted tokens.
        kind: one of CLASSES.
        result: ``missing``, ``passed``, ``failed``, ``failed (expected: …)`` for a known fault, ``met …``,
            ``missed by …`` or ``not run: <reason>``.
        date: day of the result, or empty.
    """

    id: str
    clause: str
    shown_by: str
    kind: str
    result: str
    date: str

    @property
    def tests(self) -> tuple[str, ...]:
        return tuple(token for token in TOKEN.findall(self.shown_by) if token.startswith("tests/"))

    @property
    def figures(self) -> tuple[str, ...]:
        return tuple(token[7:] for token in TOKEN.findall(self.shown_by) if token.startswith("figure:"))

    @property
    def commands(self) -> tuple[str, ...]:
        return tuple(t for t in TOKEN.findall(self.shown_by) if not t.startswith(("tests/", "figure:")))

    @property
    def is_claimed(self) -> bool:
        """Whether the row says that the clause is built."""
        return self.result != "missing"

    def line(self) -> str:
        return f"| {self.id} | {self.clause} | {self.shown_by} | {self.kind} | {self.result} | {self.date} |"


def parse_row(line: str) -> Row | None:
    """Return the row that a line of the file holds, None for any other line.

    Raises:
        ValueError: the line is a row, but not of six cells with known values.
    """
    if not (match := ROW.match(line)):
        return None
    cells = [cell.strip() for cell in match["rest"].split("|")]
    if len(cells) != 5:
        raise ValueError(f"row {match['id']} has {len(cells) + 1} cells, not 6")
    row = Row(match["id"], *cells)
    if row.kind not in CLASSES:
        raise ValueError(f"row {row.id}: class {row.kind!r} is none of {', '.join(CLASSES)}")
    if not RESULT.fullmatch(row.result):
        raise ValueError(f"row {row.id}: {row.result!r} is no result of the form {RESULT.pattern}")
    if not TOKEN.search(row.shown_by):
        raise ValueError(f"row {row.id} names no test, figure or command in back quotes")
    return row


def read(path: Path) -> list[Row]:
    """Return all rows of the file, in order.

    Raises:
        ValueError: a row is malformed, or an id occurs twice.
    """
    rows = [row for line in path.read_text(encoding="utf-8").splitlines() if (row := parse_row(line))]
    ids = [row.id for row in rows]
    if doubled := sorted({name for name in ids if ids.count(name) > 1}):
        raise ValueError(f"ids that occur twice: {', '.join(doubled)}")
    return rows


def write(path: Path, rows: Iterable[Row]) -> None:
    """Put result and date of the given rows into the file's rows of the same id; everything else stays as it is now."""
    new = {row.id: row for row in rows}
    lines = path.read_text(encoding="utf-8").splitlines()
    for index, line in enumerate(lines):
        if (row := parse_row(line)) and row.id in new:
            lines[index] = replace(row, result=new[row.id].result, date=new[row.id].date).line()
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
