"""``personalize demo``: three users teach one model three habits."""

from pathlib import Path
from typing import Annotated

import typer


def demo(
    output: Annotated[Path, typer.Option(help="folder for the plot")] = Path("demo-output"),
    seed: Annotated[int, typer.Option(help="another seed, another play")] = 0,
    figures: Annotated[
        Path | None, typer.Option(help="project folder in whose docs/figures the closing figures are recorded")
    ] = None,
) -> None:
    """Show the main job on the embedded model; exit code 1 when a closing goal is missed."""
    from personalize.evaluation import demo as play  # torch and the plot library are only needed here

    raise typer.Exit(play.main(output, seed, figures))
