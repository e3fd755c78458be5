"""How results are shown: a table for people, JSON for programs."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text


def show(rows: Sequence[Any], columns: Mapping[str, str], *, as_json: bool) -> None:
    """Print dataclasses, one row each.

    Args:
        columns: heading -> attribute; JSON holds every attribute.
    """
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    table = Table(*columns)
    for row in rows:
        # As text: what people have written, a key's label say, is no markup.
        table.add_row(*(Text(cell(name, getattr(row, name))) for name in columns.values()))
    console().print(table)


def show_one(row: Any, *, as_json: bool) -> None:
    """Print one dataclass, a line per attribute."""
    values = asdict(row)
    if as_json:
        print_json(values)
        return
    width = max(map(len, values))
    for name, value in values.items():
        typer.echo(f"{name:<{width}}  {cell(name, value)}")


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def cell(name: str, value: Any) -> str:
    """Return a value as people read it: times as dates, yes and no, a dash for nothing."""
    if value is None:
        return "—"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name.endswith("_s") and isinstance(value, int | float):
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value))
    if name.endswith("digest"):
        return str(value)[:16]
    if isinstance(value, tuple):
        return str(len(value))
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={_short(item)}" for key, item in value.items()) or "—"
    return str(value)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def console() -> Console:
    """Return a console on the standard output of now (tests replace it); full width where nobody looks."""
    made = Console()
    return made if made.is_terminal else Console(width=160)
