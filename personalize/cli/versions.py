"""``personalize versions``: list a user's versions, go back, export, import."""

from pathlib import Path
from typing import Annotated

import typer

from personalize.cli.options import Json, User, at_home
from personalize.cli.printing import show
from personalize.service import SyncPersonalizer

app = typer.Typer(no_args_is_help=True, help="List a user's versions, go back, export, import.")
COLUMNS = {
    "number": "number",
    "parent": "parent",
    "head": "is_head",
    "pinned": "pinned",
    "origin": "origin",
    "rank": "rank",
    "bytes": "num_bytes",
    "made": "created_s",
    "digest": "digest",
    "base": "base_digest",
}


@app.command("list")
@at_home
def list_versions(personalizer: SyncPersonalizer, user: User, as_json: Json = False) -> None:
    """List a user's versions, of every base model."""
    show(personalizer.versions(user), COLUMNS, as_json=as_json)


@app.command()
@at_home
def rollback(
    personalizer: SyncPersonalizer, user: User, number: Annotated[int, typer.Argument(help="a version's number")]
) -> None:
    """Serve an earlier version again; waiting follow-ups are cancelled."""
    typer.echo(f"head is version {personalizer.rollback(user, number).number}")


@app.command()
@at_home
def undo(personalizer: SyncPersonalizer, user: User) -> None:
    """Take back the last update."""
    version = personalizer.undo(user)
    typer.echo("head is the base model" if version is None else f"head is version {version.number}")


@app.command()
@at_home
def reset(personalizer: SyncPersonalizer, user: User) -> None:
    """Serve the base model again; the versions stay."""
    personalizer.reset(user)
    typer.echo("head is the base model")


@app.command()
@at_home
def pin(
    personalizer: SyncPersonalizer,
    user: User,
    number: Annotated[int, typer.Argument(help="a version's number")],
    release: Annotated[bool, typer.Option("--release", help="let retention take it again")] = False,
) -> None:
    """Keep a version for ever."""
    personalizer.pin(user, number, not release)
    typer.echo(f"version {number} is {'not pinned' if release else 'pinned'}")


@app.command()
@at_home
def export(
    personalizer: SyncPersonalizer, user: User, to: Annotated[Path, typer.Argument(help="zip file to make")]
) -> None:
    """Write all that is kept about a user into a zip file."""
    typer.echo(str(personalizer.export(user, to)))


@app.command("import")
@at_home
def import_version(
    personalizer: SyncPersonalizer,
    user: User,
    folder: Annotated[Path, typer.Argument(help="PEFT folder made for this base model")],
) -> None:
    """Make a PEFT folder the user's new head."""
    typer.echo(f"head is version {personalizer.import_(user, folder).number}")
