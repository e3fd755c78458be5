"""``personalize users``: look at users, stop and start learning, record consent, forget; no model is loaded."""

from typing import Annotated

import typer

from personalize.cli.options import Json, User, Yes, on_store
from personalize.cli.population import print_uses
from personalize.cli.printing import show, show_one
from personalize.service import Administration

app = typer.Typer(no_args_is_help=True, help="Look at users, pause them, record consent, forget.")
USERS = {
    "user id": "user_id",
    "first seen": "created_s",
    "learning": "learning",
    "consent": "consent",
    "head": "head",
    "turns": "num_turns",
    "updates": "num_updates",
}
UPDATES = {"update": "update_id", "outcome": "outcome", "version": "version", "at": "created_s", "metrics": "metrics"}


@app.command("list")
@on_store
def list_users(
    store: Administration,
    limit: Annotated[int, typer.Option(help="most users to print")] = 100,
    after: Annotated[str | None, typer.Option(help="last user id of the page before")] = None,
    as_json: Json = False,
) -> None:
    """List users by their random ids; external ids are kept as keyed hashes only."""
    show(store.users(limit, after), USERS, as_json=as_json)


@app.command("show")
@on_store
def show_user(store: Administration, user: User, as_json: Json = False) -> None:
    """Show one user."""
    show_one(store.user(user), as_json=as_json)


@app.command()
@on_store
def updates(
    store: Administration,
    user: User,
    limit: Annotated[int, typer.Option(help="most updates to print")] = 100,
    as_json: Json = False,
) -> None:
    """List what became of a user's follow-ups, the newest first."""
    show(store.updates(user, limit), UPDATES, as_json=as_json)


@app.command()
@on_store
def pause(store: Administration, user: User) -> None:
    """Learn nothing more from this user; replies go on."""
    typer.echo(f"learning is {store.set_learning(user, 'paused').learning}")


@app.command()
@on_store
def resume(store: Administration, user: User) -> None:
    """Learn from this user again."""
    typer.echo(f"learning is {store.set_learning(user, 'active').learning}")


@app.command()
@on_store
def consent(
    store: Administration,
    user: User,
    withdraw: Annotated[bool, typer.Option("--withdraw", help="record that the user no longer agrees")] = False,
) -> None:
    """Record that a user agrees to be learned from; a withdrawal counts under every setting."""
    granted = store.consent(user, not withdraw, actor="cli").consent
    typer.echo(f"consent is {'given' if granted else 'withdrawn'}")


@app.command()
@on_store
def forget(store: Administration, user: User, yes: Yes = False, as_json: Json = False) -> None:
    """Erase a user's turns, versions and queued work; it cannot be undone."""
    known = store.user(user)
    if not yes:
        typer.confirm(f"Erase {known.num_turns} turns and all versions of this user for ever?", abort=True)
    receipt = store.forget(user)
    show_one(receipt, as_json=as_json)
    if not as_json:
        print_uses(receipt.population)
