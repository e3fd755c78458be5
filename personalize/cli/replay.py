"""``personalize replay``: let recorded conversations teach, as if they had been held here."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from personalize.cli.options import Backend, Device, Home, Json, Model, place_of, settings
from personalize.cli.printing import print_json
from personalize.errors import InvalidParameter, InvalidRequest, NotFound, StorageUnavailable
from personalize.logs import BrokenLine, LoggedConversation, read_log
from personalize.service import SyncPersonalizer
from personalize.types import Outcome

MAX_OPEN = 256
"""Updates whose end is not known yet, beyond which it is asked for."""
MAX_REASONS = 5
WATCH_S = 1.0


@dataclass(slots=True)
class Tally:
    """What a log came to so far.

    Attributes:
        broken: lines that no conversation could be read from, or whose conversation this model cannot be shown.
        reasons: the first few of them, as ``line <number>: <reason>``.
        num_anonymous: conversations that name nobody.
        users: everybody whose conversation was read.
        taught: those of them with at least one answered reply that they followed up.
        outcomes: final outcomes; in a dry run ``queued`` counts what would be learnt from.
        num_queued: lessons that this run has queued.
        waiting: updates without a final outcome.
    """

    num_lines: int = 0
    broken: int = 0
    reasons: list[str] = field(default_factory=list)
    num_conversations: int = 0
    num_anonymous: int = 0
    users: set[str] = field(default_factory=set)
    taught: set[str] = field(default_factory=set)
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    num_queued: int = 0
    waiting: list[str] = field(default_factory=list)

    def refuse(self, line: int, reason: str) -> None:
        self.broken += 1
        if len(self.reasons) < MAX_REASONS:
            self.reasons.append(f"line {line}: {' '.join(reason.split())}")

    def to_json(self) -> dict[str, Any]:
        return {
            "lines": self.num_lines,
            "broken_lines": self.broken,
            "conversations": self.num_conversations,
            "conversations_without_user": self.num_anonymous,
            "users": len(self.users),
            "users_without_turns": len(self.users - self.taught),
            "queued_now": self.num_queued,
            "outcomes": {outcome.value: count for outcome, count in sorted(self.outcomes.items())},
            "first_broken": self.reasons,
        }


class LogRun:
    """One run over a log.

    Args:
        user: whose the conversations are that name nobody.
        limit: most lessons to queue.
    """

    def __init__(self, app: SyncPersonalizer, *, user: str | None, limit: int | None, dry_run: bool):
        self.tally = Tally()
        self._app = app
        self._user = user
        self._limit = limit
        self._dry_run = dry_run

    def read(self, log: Path) -> Iterator[int]:
        """Take the log's lines in order; yield how many bytes have been read."""
        for found in read_log(log):
            if self._left() == 0:
                return
            self.tally.num_lines += 1
            if isinstance(found, BrokenLine):
                self.tally.refuse(found.line, found.reason)
            else:
                self._take(found)
            if len(self.tally.waiting) > MAX_OPEN:
                self._collect()
            yield found.end_bytes

    def learn(self) -> Iterator[int]:
        """Wait for what was queued, by an earlier run of the same log too; yield how many updates of this one wait.

        Raises:
            StorageUnavailable: learning is paused for want of space.
        """
        self._collect()
        if self._dry_run:
            return
        while not self._app.settled(timeout_s=WATCH_S) or self.tally.waiting:
            yield len(self.tally.waiting)
            reason = self._app.status()["learning_paused_reason"]
            if reason is not None:
                raise StorageUnavailable(f"nothing can be learnt now: {reason}; what is queued waits")
            self._collect()

    def _left(self) -> int | None:
        return None if self._limit is None else max(0, self._limit - self.tally.num_queued)

    def _take(self, found: LoggedConversation) -> None:
        """Hand one conversation in; a conversation that cannot be shown to this model counts as a broken line."""
        user, tally = found.user or self._user, self.tally
        tally.num_conversations += 1
        if user is None:
            tally.num_anonymous += 1
            return
        try:
            lessons = self._app.learn_from(user, found.messages, max_lessons=self._left(), dry_run=self._dry_run)
        except InvalidRequest as error:
            tally.refuse(found.line, error.message)
            return
        tally.users.add(user)
        if lessons:
            tally.taught.add(user)
        for lesson in lessons:
            tally.num_queued += lesson.outcome is Outcome.QUEUED
            if lesson.update_id is not None:
                tally.waiting.append(lesson.update_id)
            else:
                tally.outcomes[lesson.outcome] += 1

    def _collect(self) -> None:
        """Count what has ended."""
        waiting, self.tally.waiting = self.tally.waiting, []
        for update_id in waiting:
            try:
                outcome = self._app.update(update_id).outcome
            except NotFound:  # forgotten meanwhile
                outcome = Outcome.CANCELLED_ERASURE
            if outcome is Outcome.QUEUED:
                self.tally.waiting.append(update_id)
            else:
                self.tally.outcomes[outcome] += 1


def replay(
    log: Annotated[Path, typer.Argument(help="recorded conversations, one JSON object per line")],
    home: Home = None,
    model: Model = None,
    device: Device = None,
    backend: Backend = "local",
    user: Annotated[str | None, typer.Option(help="whose the conversations are that name nobody")] = None,
    limit: Annotated[int | None, typer.Option(help="most lessons to queue in this run", min=0)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would be learnt from; change nothing")] = False,
    as_json: Json = False,
) -> None:
    """Learn from LOG, user by user, in its order; run again, it goes on where it stopped."""
    if not log.is_file():
        raise InvalidParameter("log", str(log), "a readable file of JSON lines")
    place = place_of(settings(home, model, device, backend), dry_run)
    with place as chosen, SyncPersonalizer.open(settings=chosen) as app:
        run = LogRun(app, user=user, limit=limit, dry_run=dry_run)
        _show_progress(run, log)
    if as_json:
        print_json(run.tally.to_json())
    else:
        _print(run.tally, dry_run)


def _show_progress(run: LogRun, log: Path) -> None:
    """Run, with a bar on the terminal's error output; nothing is shown where nobody looks."""
    screen = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen, disable=not screen.is_terminal) as bar:
        reading = bar.add_task("reading", total=max(1, log.stat().st_size))
        for end_bytes in run.read(log):
            bar.update(reading, completed=end_bytes, description=f"{run.tally.num_queued} queued")
        learning = None
        for num_waiting in run.learn():
            if learning is None:
                learning = bar.add_task("learning", total=num_waiting)
            bar.update(learning, completed=(bar.tasks[-1].total or 0) - num_waiting)


def _print(tally: Tally, dry_run: bool) -> None:
    values = tally.to_json()
    first, outcomes = values.pop("first_broken"), values.pop("outcomes")
    if dry_run:
        values["would_be_queued"] = values.pop("queued_now")
    width = max(map(len, (*values, *outcomes)))
    for name, value in {**values, **({} if dry_run else outcomes)}.items():
        typer.echo(f"{name:<{width}}  {value}")
    if dry_run:
        skipped = {name: count for name, count in outcomes.items() if name != Outcome.QUEUED}
        for name, count in skipped.items():
            typer.echo(f"{name:<{width}}  {count}")
    for reason in first:
        typer.echo(f"broken {reason}")
