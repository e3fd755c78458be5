"""What the demo shows while it runs: a live table of turns, and the replies before and after."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from personalize.evaluation.users import Said
from personalize.types import Outcome, Reply

if TYPE_CHECKING:
    from personalize.evaluation.demo import Person

_COLOURS = {"complaint": "red", "praise": "green", "remark": "cyan", "new_topic": "blue", "question": "blue"}
_VISIBLE = 14


@dataclass(frozen=True, slots=True)
class Row:
    """One turn of the table."""

    name: str
    follow_ups: int
    said: Said
    reply: Reply
    outcome: Outcome
    reply_ms: float
    update_ms: float | None


class Stage:
    """A live table on a terminal; plain lines where there is none."""

    def __init__(self, console: Console):
        self.console = console
        self.rows: list[Row] = []
        self.notes: list[str] = []
        self._live = Live(console=console, refresh_per_second=4) if console.is_terminal else None

    def __enter__(self) -> "Stage":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.update(self._view(every=True))
            self._live.stop()

    def add(self, row: Row) -> None:
        self.rows.append(row)
        if self._live:
            self._live.update(self._view())
        else:
            cells = " | ".join(text.plain if isinstance(text, Text) else text for text in _cells(row))
            self.console.print(cells, highlight=False, soft_wrap=True)

    def note(self, text: str) -> None:
        self.notes.append(text)
        if self._live:
            self._live.update(self._view())
        else:
            self.console.print(text, highlight=False)

    def _view(self, *, every: bool = False) -> Group:
        table = Table(title="every update is awaited for at most 3 s: the time a person would be typing", expand=True)
        for heading in ("user", "turn", "says", "outcome", "served by", "reply ms", "update ms"):
            table.add_column(heading, ratio=4 if heading == "says" else None, no_wrap=heading != "says")
        for row in self.rows if every else self.rows[-_VISIBLE:]:
            table.add_row(*_cells(row))
        return Group(table, *[Text(note, style="dim") for note in self.notes[-4:]])


def _cells(row: Row) -> list[str | Text]:
    version = "base" if row.reply.adapter_version is None else f"v{row.reply.adapter_version}"
    return [
        row.name,
        str(row.follow_ups),
        Text(row.said.text, style=_COLOURS[row.said.kind]),
        str(row.outcome),
        version,
        f"{row.reply_ms:.0f}",
        "" if row.update_ms is None else f"{row.update_ms:.0f}",
    ]


def show_before_after(console: Console, question: str, people: Sequence["Person"]) -> None:
    """Print each person's reply to the same fresh question before and after."""
    table = Table(title=f"“{question}” in a fresh chat", expand=True, show_lines=True)
    for heading in ("user", "wants", "before", "after"):
        table.add_column(heading, ratio=3 if heading in ("before", "after") else None)
    for person in people:
        wishes = "\n".join(str(one) for one in person.user.preferences)
        table.add_row(person.name, wishes, Text(person.before), Text(person.after))
    console.print(table)
