"""``personalize explain``: what one update did, token by token."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.panel import Panel
from rich.style import Style
from rich.table import Table
from rich.text import Text

from personalize.cli.options import Json, User, at_home
from personalize.cli.printing import console, print_json
from personalize.errors import InvalidParameter
from personalize.reporting.explanation import (
    COLUMNS,
    measures,
    number_text,
    parent_name,
    printable,
    reported,
    scale_of,
    sides_of,
    signed,
    token_text,
    way_of,
)
from personalize.reporting.explanation_page import page
from personalize.service import SyncPersonalizer
from personalize.types import Explanation, TokenSignal

NUM_STRONGEST = 12
UP, DOWN = ("#d6ebf7", "#8ec8ea", "#3fa0d8"), ("#fbe3d2", "#f3b183", "#e67e2e")
"""Grounds for a weak, a middling and a strong push; black reads on all of them, on light and dark terminals alike."""


@at_home
def explain(
    personalizer: SyncPersonalizer,
    user: User,
    update: Annotated[str, typer.Option(help="id of an update, or of the turn it was about")] = "latest",
    html: Annotated[Path | None, typer.Option(help="write one HTML page to this file")] = None,
    probe: Annotated[str | None, typer.Option(help="prompt for the replies before and after; else the turn's")] = None,
    as_json: Json = False,
) -> None:
    """Show what an update of USER's adapter did: tokens pushed up and down, replies before and after, drift."""
    if html is not None and (html.is_dir() or not html.absolute().parent.is_dir()):
        raise InvalidParameter("html", str(html), "a file in a folder that exists")
    explanation = personalizer.explain(user, update, probe=probe)
    if html is not None:
        _write(html, page(explanation))
    if as_json:
        print_json(explanation.to_json())
    else:
        show(explanation, console())
        if html is not None:
            typer.echo(f"written to {typer.format_filename(html)}")


def show(explanation: Explanation, screen: Console) -> None:
    """Print an explanation; signs and tables say what colours say, for those who see none."""
    tokens = explanation.effect.tokens
    screen.print(Text(f"update {explanation.update_id}: version {explanation.version} from {parent_name(explanation)}"))
    screen.print(_said("the user asked", explanation.question))
    screen.print(Panel(coloured(tokens), title="the reply", subtitle="blue: pushed up · orange: pushed down"))
    screen.print(_said("the user wrote next", explanation.follow_up))
    for text in explanation.told:
        screen.print(_said(f"the teacher ({explanation.effect.teacher}) was told", text))
    if explanation.num_told_gone:
        gone = f"and {explanation.num_told_gone} more that no longer exist: no signal of the teacher"
        screen.print(Text(gone, style="yellow"))
    screen.print(strongest(tokens))
    _show_probe(explanation, screen)
    table = Table("measure", "value", show_header=False)
    told = {f"reported: {name}": value for name, value in reported(explanation).items()}
    for name, value in {**measures(explanation), **told}.items():
        table.add_row(Text(printable(name)), number_text(value))
    screen.print(table)


def coloured(tokens: Iterable[TokenSignal]) -> Text:
    """Return the reply on blue ground where it was pushed up, on orange where down; thoughts are dim."""
    tokens = tuple(tokens)
    scale = scale_of(tokens)
    return Text.assemble(*((token_text(token), _style(token, scale)) for token in tokens))


def strongest(tokens: Iterable[TokenSignal]) -> Table:
    """Return the tokens that moved most, in the order of the reply."""
    placed = [(place, token) for place, token in enumerate(tokens, start=1) if token.change is not None]
    most = sorted(placed, key=lambda one: -abs(one[1].change or 0.0))[:NUM_STRONGEST]
    table = Table("place", "token", *COLUMNS, title=f"the {len(most)} tokens that moved most, in nats")
    for place, token in sorted(most, key=lambda one: one[0]):
        numbers = (signed(getattr(token, name)) for name in COLUMNS.values())
        table.add_row(str(place), Text(token_text(token).strip("\n")), *numbers)
    return table


def _style(token: TokenSignal, scale: float) -> Style:
    if token.change is None:
        return Style(dim=True)
    way = way_of(token, scale)
    if not way:
        return Style()
    grounds = UP if way == "up" else DOWN
    return Style(color="black", bgcolor=grounds[min(2, int(abs(token.change) / scale * 3))])


def _said(title: str, text: str) -> Panel:
    return Panel(Text(printable(text)), title=Text(title), title_align="left")


def _show_probe(explanation: Explanation, screen: Console) -> None:
    screen.print(_said("greedy replies to", explanation.probe.prompt))
    for _, title, text in sides_of(explanation):
        screen.print(_said(title, text))


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidParameter("html", str(file), f"a file that can be written ({error.strerror})") from error
