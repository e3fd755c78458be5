"""``personalize serve``: open a model and a store, and answer until told to stop."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
import uvicorn

from personalize.access import Access
from personalize.cli import options
from personalize.config import Settings
from personalize.errors import InvalidParameter

LOOPBACK = ("127.0.0.1", "::1", "localhost")
DRAIN_S = 60


def register(app: typer.Typer) -> None:
    """Add this package's commands to the command line."""
    app.command("serve")(serve)


def serve(
    host: Annotated[str, typer.Option(help="address to listen on; others than this machine's need a key first")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="0 takes a free one", min=0, max=65535)] = 8000,
    model: options.Model = None,
    home: options.Home = None,
    device: options.Device = None,
    backend: options.Backend = "local",
    learning: Annotated[str | None, typer.Option(help="on, ask or always; see the README")] = None,
    database_url: Annotated[str | None, typer.Option(help="SQLAlchemy URL; default: SQLite inside --home")] = None,
    max_requests_per_user: Annotated[
        int | None, typer.Option(help="replies that one user may have waiting and running; default 16")
    ] = None,
    population: Annotated[
        bool | None,
        typer.Option("--population/--no-population", help="serve who has no version yet with the population adapter"),
    ] = None,
) -> None:
    """Serve an OpenAI-compatible API; SIGTERM answers what has been accepted, then ends."""
    service = {"learning": learning, "max_requests_per_user": max_requests_per_user, "population": population}
    chosen = _settings(home, model, device, backend, service, database_url)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for name in ("server", "personalize", "uvicorn"):
        logging.getLogger(name).setLevel(logging.INFO)
    asyncio.run(_serve(chosen, host, port))


def _settings(
    home: Path | None,
    model: str | None,
    device: str | None,
    backend: str,
    service: Mapping[str, Any],
    database_url: str | None,
) -> Settings:
    chosen = options.settings(home, model, device, backend)
    named = {name: value for name, value in service.items() if value is not None}
    return replace(chosen, service=replace(chosen.service, **named), database_url=database_url or chosen.database_url)


async def _serve(settings: Settings, host: str, port: int) -> None:
    await _check_keys(settings, host)
    await _check_address(host, port)
    from personalize.service import Personalizer
    from server.app import create_app

    async with Personalizer.open(settings=settings) as personalizer:
        config = uvicorn.Config(
            create_app(personalizer, Access(personalizer)),
            host=host,
            port=port,
            access_log=False,  # its lines carry paths, and paths carry user ids; see server.edge
            server_header=False,
            lifespan="off",
            log_config=None,
            timeout_graceful_shutdown=DRAIN_S,
        )
        with _signals_end_the_server_only():
            await uvicorn.Server(config).serve()


async def _check_keys(settings: Settings, host: str) -> None:
    """Before a model is loaded: nobody from outside gets in without a key.

    Raises:
        InvalidParameter: there is no key yet and ``host`` can be reached from other machines.
    """
    async with Access.open(settings) as access:
        if host not in LOOPBACK and not await access.has_keys():
            allowed = (
                f"{', '.join(LOOPBACK)} until there is a key; make one with: personalize keys create --scope admin"
            )
            raise InvalidParameter("host", host, allowed)
        secret = await access.ensure_admin_key()
    if secret is not None:
        typer.echo(f"admin key, shown only this once: {secret}")


async def _check_address(host: str, port: int) -> None:
    """Before a model is loaded: uvicorn, which binds after that, says in a line of its log why it ends.

    Raises:
        InvalidParameter: nobody can listen there; the port is taken, say, or ``host`` is no address of this machine.
    """
    loop = asyncio.get_running_loop()
    try:
        bound = await loop.create_server(asyncio.Protocol, host, port, start_serving=False)
    except (OSError, UnicodeError) as error:
        allowed = f"an address that can be listened on ({error})"
        raise InvalidParameter("host:port", f"{host}:{port}", allowed) from error
    bound.close()


@contextlib.contextmanager
def _signals_end_the_server_only() -> Iterator[None]:
    """uvicorn drains on a signal and then raises it again; the store must still be closed after that."""
    signals = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.signal(number, lambda *_: None) for number in signals}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
