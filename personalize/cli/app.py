"""The commands put together, and how their errors are shown.

Exit codes: 0 done; 1 refused or failed, with one line ``error: <code>: <message>`` on standard error; 2 wrong usage;
130 interrupted.
"""

from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

import personalize
from personalize.cli import (
    audit,
    calibrate,
    chat,
    demo,
    explain,
    keys,
    population,
    rebase,
    replay,
    undo,
    users,
    versions,
)
from personalize.cli.options import is_whole
from personalize.errors import InvalidParameter, PersonalizeError

GROUP = "personalize.commands"
"""Entry points of this group are functions that take the Typer application and add commands to it."""


class Commands(TyperGroup):
    """Shows an error of the SDK as one line."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except PersonalizeError as error:
            message = " ".join(error.message.split())
            typer.echo(f"error: {error.code}: {message}", err=True)
            raise typer.Exit(1) from error


class Command(TyperCommand):
    """Takes text in UTF-8 only; the name of a file may be any bytes, as on the disk."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command.

        Raises:
            InvalidParameter: naming the argument that is not UTF-8.
        """
        for name, value in ctx.params.items():
            for text in value if isinstance(value, list | tuple) else (value,):
                if isinstance(text, str) and not is_whole(text):
                    raise InvalidParameter(name, text, "UTF-8 text")
        return super().invoke(ctx)


def _tell_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"personalize {personalize.__version__}")
        raise typer.Exit()


def _main(
    version: Annotated[
        bool, typer.Option("--version", help="print the version and end", is_eager=True, callback=_tell_version)
    ] = False,
) -> None:
    """A small LoRA adapter for every user, taught by the user's own follow-ups."""


def build() -> typer.Typer:
    """Return the application with our own commands and those of the entry-point group."""
    app = typer.Typer(
        cls=Commands,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.callback()(_main)
    app.command("demo")(demo.demo)
    app.command("chat")(chat.chat)
    app.command("explain")(explain.explain)
    app.command("calibrate")(calibrate.calibrate)
    app.command("audit")(audit.audit)
    app.command("replay")(replay.replay)
    app.command("rebase")(rebase.rebase)
    app.command("undo")(undo.undo)
    app.add_typer(users.app, name="users")
    app.add_typer(versions.app, name="versions")
    app.add_typer(keys.app, name="keys")
    app.add_typer(population.app, name="population")
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        _register(app, entry)
    _check_text(app)
    return app


def _check_text(app: typer.Typer) -> None:
    """Make a ``Command`` of every command that has no class of its own, below groups and of other packages too."""
    for command in app.registered_commands:
        if command.cls in (None, TyperCommand):
            command.cls = Command
    for group in app.registered_groups:
        if group.typer_instance is not None:
            _check_text(group.typer_instance)


def _register(app: typer.Typer, entry: EntryPoint) -> None:
    """Let a package add its commands; where its libraries are missing, a command of that name says so."""
    try:
        entry.load()(app)
    except ImportError as error:
        reason = f"`personalize {entry.name}` needs packages that are not installed ({error.name or error})"
        app.command(entry.name, help=reason)(_unavailable(entry, reason))


def _unavailable(entry: EntryPoint, reason: str):
    def command() -> None:
        typer.echo(f"error: not_installed: {reason}; try: pip install 'personalize[server]'", err=True)
        raise typer.Exit(1)

    return command
