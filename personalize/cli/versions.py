"""``personalize versions``: list a user's versions, go back, pin, export, import, prune; no model is loaded."""

from pathlib import Path
from typing import Annotated

import typer

from personalize.cli.options import Json, User, on_store
from personalize.cli.printing import show, show_one
from personalize.service import Administration

app = typer.Typer(no_args_is_help=True, help="List a user's versions, go back, pin, export, import.")
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
@on_store
def list_versions(store: Administration, user: User, as_json: Json = False) -> None:
    """List a user's versions, of every base model."""
    show(store.versions(user), COLUMNS, as_json=as_json)


@app.command()
@on_store
def rollback(
    store: Administration, user: User, number: Annotated[int, typer.Argument(help="a version's number")]
) -> None:
    """Serve an earlier version again; waiting follow-ups are cancelled."""
    typer.echo(f"head is version {store.rollback(user, number).number}")


@app.command()
@on_store
def undo(store: Administration, user: User) -> None:
    """Take back the last update."""
    version = store.undo(user)
    none = "no version is the head: the base model serves, or the population adapter where that is on"
    typer.echo(none if version is None else f"head is version {version.number}")


@app.command()
@on_store
def reset(store: Administration, user: User) -> None:
    """Serve the base model again; the versions stay."""
    store.reset(user)
    typer.echo("head is the base model")


@app.command()
@on_store
def pin(
    store: Administration,
    user: User,
    number: Annotated[int, typer.Argument(help="a version's number")],
    release: Annotated[bool, typer.Option("--release", help="let retention take it again")] = False,
) -> None:
    """Keep a version for ever."""
    store.pin(user, number, not release)
    typer.echo(f"version {number} is {'not pinned' if release else 'pinned'}")


@app.command()
@on_store
def export(
    store: Administration,
    user: User,
    to: Annotated[Path, typer.Argument(help="zip file to make")],
    number: Annotated[int | None, typer.Option("--version", help="only the folder of this version")] = None,
) -> None:
    """Write all that is kept about a user, or one version's PEFT folder, into a zip file."""
    made = store.export(user, to) if number is None else store.export_version(user, number, to)
    typer.echo(typer.format_filename(made))


@app.command("import")
@on_store
def import_version(
    store: Administration,
    user: User,
    source: Annotated[Path, typer.Argument(help="PEFT folder made for this base model, or a zip file of one")],
) -> None:
    """Make a PEFT folder the user's new head; it is checked against the base model that was opened here."""
    typer.echo(f"head is version {store.import_(user, source).number}")


@app.command()
@on_store
def prune(store: Administration, as_json: Json = False) -> None:
    """Remove the old versions and conversations that retention lets go; a running server does it by itself."""
    show_one(store.prune(), as_json=as_json)
