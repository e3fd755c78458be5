"""``personalize rebase``: rebuild users' adapters for another base model."""

from collections.abc import Iterator
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from personalize.cli.options import Backend, Device, Home, Json, existing, settings
from personalize.cli.printing import show
from personalize.errors import Conflict
from personalize.service import SyncPersonalizer
from personalize.types import RebaseReport, UserId

PAGE = 100
COLUMNS = {
    "user id": "user_id",
    "status": "status",
    "from version": "source",
    "to version": "version",
    "turns": "num_turns",
    "lost": "num_lost",
    "outcomes": "outcomes",
}


def rebase(
    to: Annotated[str, typer.Option("--to", help="the new base: pocket, a path or a hub id")],
    home: Home = None,
    device: Device = None,
    backend: Backend = "local",
    user: Annotated[str | None, typer.Option(help="this user only")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would be rebuilt; change nothing")] = False,
    as_json: Json = False,
) -> None:
    """Rebuild users' adapters for the base model TO from their kept turns; heads of other bases stay."""
    chosen = settings(home, to, device, backend)
    existing(chosen)
    reports, conflicts = [], 0
    with SyncPersonalizer.open(settings=chosen) as app:
        names = [user] if user is not None else list(_everybody(app))
        screen = Console(stderr=True)
        for name in track(names, "rebuilding", console=screen, disable=not screen.is_terminal):
            try:
                reports.append(app.rebase(name, dry_run=dry_run))
            except Conflict as error:
                conflicts += 1
                typer.echo(f"error: {error.code}: {_whose(name)}: {error.message}", err=True)
    show(_worth_showing(reports, user), COLUMNS, as_json=as_json)
    if conflicts:
        raise typer.Exit(1)


def _everybody(app: SyncPersonalizer) -> Iterator[UserId]:
    after: str | None = None
    while page := app.users(PAGE, after):
        yield from (UserId(info.user_id) for info in page)
        after = page[-1].user_id


def _worth_showing(reports: list[RebaseReport], user: str | None) -> list[RebaseReport]:
    """Of everybody only those who have an adapter for another base."""
    return [report for report in reports if user is not None or report.status not in ("current", "no_adapter")]


def _whose(name: str) -> str:
    return f"user {name}" if isinstance(name, UserId) else "the user"
