"""``personalize keys``: make, list and revoke API keys; no model is loaded."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

import typer

from personalize.access import Access
from personalize.cli.options import Home, Json, existing, settings
from personalize.cli.printing import print_json, show

T = TypeVar("T")
app = typer.Typer(no_args_is_help=True, help="Make, list and revoke API keys.")
COLUMNS = {
    "key": "key_id",
    "scope": "scope",
    "user id": "user_id",
    "label": "label",
    "made": "created_s",
    "revoked": "revoked",
}


def with_access(home: Path | None, work: Callable[[Access], Coroutine[Any, Any, T]], *, must_exist: bool) -> T:
    """Do ``work`` on the keys that are kept in ``home``."""
    chosen = settings(home)
    if must_exist:
        existing(chosen)

    async def run() -> T:
        async with Access.open(chosen) as access:
            return await work(access)

    return asyncio.run(run())


@app.command()
def create(
    scope: Annotated[str, typer.Option(help="admin, app or user")],
    user: Annotated[str | None, typer.Option(help="whom a key of scope user is")] = None,
    label: Annotated[str, typer.Option(help="a remark, to tell keys apart")] = "",
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Make a key and print its secret, which is kept nowhere and never shown again."""
    key, secret = with_access(home, lambda access: access.create_key(cast(Any, scope), user, label), must_exist=False)
    if as_json:
        print_json({**asdict(key), "secret": secret})
    else:
        typer.echo(secret)
        typer.echo(f"key {key.key_id} of scope {key.scope}; the line above is its secret, shown only now", err=True)


@app.command("list")
def list_keys(home: Home = None, as_json: Json = False) -> None:
    """List keys, revoked ones too; never their secrets."""
    show(with_access(home, Access.list_keys, must_exist=True), COLUMNS, as_json=as_json)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="the key's id, as `keys list` shows it")], home: Home = None
) -> None:
    """Make a key useless at once."""
    with_access(home, lambda access: access.revoke_key(key_id), must_exist=True)
    typer.echo(f"key {key_id} is revoked")
