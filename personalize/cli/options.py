"""Options that several commands share, and the settings they come to."""

import contextlib
import functools
import inspect
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from personalize.config import ServiceSettings, Settings, from_environment
from personalize.errors import InvalidParameter
from personalize.service import Administration, SyncPersonalizer

User = Annotated[str, typer.Argument(help="your own name for the user", metavar="USER")]
Home = Annotated[
    Path | None, typer.Option("--home", help="folder that holds everything; else PERSONALIZE_HOME, else data")
]
Model = Annotated[
    str | None, typer.Option("--model", help="pocket, a path or a hub id; else PERSONALIZE_MODEL, else pocket")
]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda or auto; else PERSONALIZE_DEVICE, else auto")]
Backend = Annotated[str, typer.Option("--backend", help="local, or echo to try things without a model")]
Json = Annotated[bool, typer.Option("--json", help="print JSON, for programs")]
Yes = Annotated[bool, typer.Option("--yes", help="do not ask")]
Whose = Annotated[
    str | None,
    typer.Option("--model", help="whose versions; else PERSONALIZE_MODEL, else the model that was opened here last"),
]
PLACE: dict[str, tuple[Any, Any]] = {"home": (Home, None), "model": (Model, None), "backend": (Backend, "local")}
"""Options that say what is opened: name -> (type, default)."""
STORE: dict[str, tuple[Any, Any]] = {"home": (Home, None), "model": (Whose, None)}
"""The same for what is managed without a model."""


def settings(
    home: Path | None = None, model: str | None = None, device: str | None = None, backend: str = "local"
) -> Settings:
    """Return the settings that options name, else the environment, else the defaults.

    Raises:
        InvalidParameter: a value is not allowed.
    """
    known = from_environment()
    chosen: dict[str, Any] = {"backend": backend, "database_url": known.get("database_url")}
    for name, value in {"home": home, "model": model, "device": device}.items():
        if (value := value if value is not None else known.get(name)) is not None:
            chosen[name] = value
    made = Settings(**{**chosen, "home": Path(chosen.get("home", "data"))})
    service: dict[str, Any] = {"learning": known["learning"]} if "learning" in known else {}
    if "population" in known:
        service["population"] = _switch("population", known["population"])
    return replace(made, service=ServiceSettings(**service))


def _switch(name: str, value: str) -> bool:
    if value not in ("on", "off"):
        raise InvalidParameter(name, value, "'on' or 'off'")
    return value == "on"


def is_whole(text: str) -> bool:
    """Return whether ``text`` has no half of a surrogate pair, which is what Python makes of bytes that are no text."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def existing(chosen: Settings) -> None:
    """Refuse a home that nothing is kept in: looking must not make an empty store wherever it is called.

    Raises:
        InvalidParameter: there is no such folder, or this account may not look.
    """
    if not _is_folder(chosen.home):
        raise InvalidParameter("home", str(chosen.home), "a folder that a Personalizer has used; see --home")


def _is_folder(home: Path) -> bool:
    try:
        return home.is_dir()
    except OSError as error:
        raise InvalidParameter("home", str(home), f"a folder that can be read ({error.strerror})") from error


@contextlib.contextmanager
def place_of(chosen: Settings, dry_run: bool) -> Iterator[Settings]:
    """Give a dry run without a home an empty one that is gone afterwards.

    Raises:
        InvalidParameter: this account may not look whether there is one.
    """
    if not dry_run or _is_folder(chosen.home):
        yield chosen
        return
    with tempfile.TemporaryDirectory() as folder:
        yield replace(chosen, home=Path(folder))


def at_home(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that say what to open, and the opened ``SyncPersonalizer`` as its first argument.

    The decorated function has the command's other parameters and those of ``PLACE``; Typer reads them from its
    signature.
    """

    @functools.wraps(command)
    def run(*, home: Path | None, model: str | None, backend: str, **own: Any) -> None:
        chosen = settings(home, model, backend=backend)
        existing(chosen)
        with SyncPersonalizer.open(settings=chosen) as personalizer:
            command(personalizer, **own)

    return _with_options(run, command, PLACE)


def on_store(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that name a store, and its ``Administration`` as its first argument.

    No model is loaded. The decorated function has the command's other parameters and those of ``STORE``.
    """

    @functools.wraps(command)
    def run(*, home: Path | None, model: str | None, **own: Any) -> None:
        chosen = settings(home, model)
        existing(chosen)
        with Administration.open(chosen, model or from_environment().get("model")) as store:
            command(store, **own)

    return _with_options(run, command, STORE)


def _with_options(
    run: Callable[..., None], command: Callable[..., None], place: Mapping[str, tuple[Any, Any]]
) -> Callable[..., None]:
    """Let ``run`` show the parameters of ``command`` but the first, and those of ``place``."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    _, *mine = inspect.signature(command).parameters.values()
    added = [
        inspect.Parameter(name, keyword, default=default, annotation=annotation)
        for name, (annotation, default) in place.items()
    ]
    run.__signature__ = inspect.Signature([*(one.replace(kind=keyword) for one in mine), *added])  # type: ignore[attr-defined]
    run.__annotations__ = {
        **{one.name: one.annotation for one in mine},
        **{name: annotation for name, (annotation, _) in place.items()},
    }
    return run
