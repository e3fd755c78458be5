"""``personalize population``: one adapter from logs, for users who have none yet."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from personalize.cli.options import Backend, Device, Home, Json, Model, Yes, on_store, place_of, settings
from personalize.cli.printing import print_json, show
from personalize.errors import Conflict
from personalize.service import Administration, SyncPersonalizer
from personalize.types import PopulationInfo, PopulationReport, PopulationUse

app = typer.Typer(no_args_is_help=True, help="Build one adapter from logs, for users who have none yet.")
VERSIONS = {
    "number": "number",
    "head": "is_head",
    "kept": "kept",
    "made": "created_s",
    "people": "num_people",
    "forgotten": "num_forgotten",
    "name": "name",
}
SOURCES = {
    "version": "version",
    "log (sha256)": "digest",
    "bytes": "num_bytes",
    "lines": "num_lines",
    "broken": "num_broken",
    "conversations": "num_conversations",
    "people": "num_people",
    "lessons": "num_lessons",
}
USES = {
    "version": "number",
    "conversations": "num_conversations",
    "lessons": "num_lessons",
    "own versions began with it": "in_line",
    "logs (sha256)": "logs",
}


@dataclass(frozen=True, slots=True)
class SourceLine:
    """One log of one version."""

    version: int
    digest: str
    num_bytes: int
    num_lines: int
    num_broken: int
    num_conversations: int
    num_people: int
    num_lessons: int


@dataclass(frozen=True, slots=True)
class UseLine:
    """How one version concerns one person."""

    number: int
    num_conversations: int
    num_lessons: int
    in_line: bool
    logs: str


@app.command()
def build(
    logs: Annotated[
        list[Path], typer.Argument(help="recorded conversations, one JSON object per line", metavar="LOG…")
    ],
    home: Home = None,
    model: Model = None,
    device: Device = None,
    backend: Backend = "local",
    user: Annotated[str | None, typer.Option(help="whose the conversations are that name nobody")] = None,
    without_user: Annotated[
        list[str] | None, typer.Option("--without-user", help="leave this person's conversations out; repeatable")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would be learnt from; change nothing")] = False,
    as_json: Json = False,
) -> None:
    """Train the population adapter's next version from LOGs and nothing else; all of it appears, or nothing."""
    place = place_of(settings(home, model, device, backend), dry_run)
    with place as chosen, SyncPersonalizer.open(settings=chosen) as opened:
        report = _built(opened, logs, user=user, without=without_user or (), dry_run=dry_run)
    if as_json:
        print_json(_plain(report))
    else:
        _print(report)
    if report.version is None and not dry_run:
        reason = f"the review found {report.breach}" if report.breach else "nothing was learnt"
        raise Conflict(f"no version was published: {reason}")


@app.command("show")
@on_store
def show_versions(
    store: Administration,
    user: Annotated[str | None, typer.Option(help="only the versions that this person is part of")] = None,
    as_json: Json = False,
) -> None:
    """Show every version's manifest: the digests of its logs, and whether its weights still exist."""
    if user is not None:
        _show_uses(store.population.uses(user), as_json=as_json)
        return
    versions = store.population.versions()
    show(versions, VERSIONS, as_json=as_json)
    if not as_json:
        show(_source_lines(versions), SOURCES, as_json=False)


@app.command()
@on_store
def remove(
    store: Administration,
    numbers: Annotated[list[int] | None, typer.Argument(help="versions; without any, all of them")] = None,
    yes: Yes = False,
) -> None:
    """Delete versions, weights and all; users' own versions that began with one stay."""
    if not yes:
        what = f"version {', '.join(map(str, numbers))}" if numbers else "every version"
        typer.confirm(f"Delete {what} of the population adapter for ever?", abort=True)
    typer.echo(f"removed {len(store.population.remove(*(numbers or ())))}")


def print_uses(uses: Sequence[PopulationUse]) -> None:
    """Say after an erasure which versions are to be built anew; nothing where none is."""
    if uses:
        _show_uses(uses, as_json=False)
        typer.echo("the population adapter was made with this user: build it from logs without, then remove these")


def _built(opened: SyncPersonalizer, logs: Sequence[Path], **how: Any) -> PopulationReport:
    """Build, with a bar on the terminal's error output; nothing is shown where nobody looks."""
    screen = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen, disable=not screen.is_terminal) as bar:
        reading = bar.add_task("reading", total=max(1, sum(log.stat().st_size for log in logs if log.is_file())))

        def progress(num_bytes: int, num_lessons: int) -> None:
            bar.update(reading, completed=num_bytes, description=f"{num_lessons} learnt")

        return opened.build_population(logs, progress=progress, **how)


def _plain(report: PopulationReport) -> dict[str, Any]:
    sources = [{name: getattr(one, name) for name in one.__dataclass_fields__} for one in report.sources]
    return {
        **{name: getattr(report, name) for name in report.__dataclass_fields__},
        "sources": sources,
        "first_broken": list(report.first_broken),
        "outcomes": dict(report.outcomes),
    }


def _print(report: PopulationReport) -> None:
    values = {
        "version": report.version or "—",
        "people": report.num_people,
        "conversations_without_user": report.num_anonymous,
        "conversations_left_out": report.num_left_out,
        **report.outcomes,
    }
    width = max(map(len, values))
    for name, value in values.items():
        typer.echo(f"{name:<{width}}  {value}")
    show(_source_lines((report,)), SOURCES, as_json=False)
    for reason in report.first_broken:
        typer.echo(f"broken {reason}")


def _source_lines(versions: Sequence[PopulationInfo] | Sequence[PopulationReport]) -> list[SourceLine]:
    return [
        SourceLine(
            one.number if isinstance(one, PopulationInfo) else one.version or 0,
            *(getattr(source, name) for name in source.__dataclass_fields__),
        )
        for one in versions
        for source in one.sources
    ]


def _show_uses(uses: Sequence[PopulationUse], *, as_json: bool) -> None:
    if as_json:
        show(uses, {}, as_json=True)
        return
    lines = [
        UseLine(
            use.number,
            use.num_conversations,
            use.num_lessons,
            use.in_line,
            " ".join(digest[:16] for digest in use.in_sources or use.sources),
        )
        for use in uses
    ]
    show(lines, USES, as_json=False)
