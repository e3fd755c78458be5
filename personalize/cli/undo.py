"""``personalize undo``: take back what one turn taught."""

from typing import Annotated

import typer

from personalize.cli.options import Json, User, at_home
from personalize.cli.printing import show_one
from personalize.service import SyncPersonalizer
from personalize.types import UndoReport


@at_home
def undo(
    personalizer: SyncPersonalizer,
    user: User,
    turn: Annotated[str, typer.Option("--turn", help="id of the turn, or of the update about it")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would be done; change nothing")] = False,
    as_json: Json = False,
) -> None:
    """Take back what one turn taught USER's adapter; what was learnt after it is learnt again without it.

    The last update alone is taken back by `personalize versions undo`, without a model.
    """
    report = personalizer.undo_turn(user, turn, dry_run=dry_run)
    if as_json:
        show_one(report, as_json=True)
        return
    typer.echo(told(report))


def told(report: UndoReport) -> str:
    """Return in words what was done."""
    start = "the beginning" if report.start is None else f"version {report.start}"
    again = f"{report.num_turns} later turn{'' if report.num_turns == 1 else 's'}"
    if report.status == "planned":
        if not report.num_turns:
            return f"would go back to {start}, which is exact; nothing would be learnt again"
        return f"would learn {again} again from {start}: a re-computation without turn {report.turn_id}"
    if report.status == "exact":
        return f"head is {start}: exact, nothing was learnt again"
    head = "the beginning" if report.version is None else f"version {report.version}"
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in report.outcomes.items())
    return (
        f"head is {head}: a re-computation without turn {report.turn_id}, not the adapter that would have been; "
        f"{again} learnt again from {start} ({outcomes})"
    )
