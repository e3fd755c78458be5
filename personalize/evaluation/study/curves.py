"""The pictures of the report."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from personalize.evaluation.study.arms import ARMS, BASE, ORACLE
from personalize.evaluation.study.book import Book
from personalize.evaluation.study.goals import EVERYBODY
from personalize.evaluation.study.profiles import PAIRS
from personalize.evaluation.study.scripts import LIFE


def draw(book: Book, folder: Path, suffix: str = "") -> list[Path]:
    """Write one picture of all arms and one of the long lives, as far as there is something to draw; return them."""
    found = [_arms(book, folder / f"curves{suffix}.png"), _lives(book, folder / f"lives{suffix}.png")]
    return [path for path in found if path is not None]


def _arms(book: Book, path: Path) -> Path | None:
    """Draw the joint rate of two-preference users against follow-ups, with intervals over cells."""
    arms = [name for name in book.arms() if ARMS[name].lives]
    if not arms:
        return None
    figure, axes = _axes("preference rate (joint, two preferences)")
    for name in arms:
        estimates = {
            turn: book.mean(book.lines(turn, arm=name, profiles=PAIRS), "joint") for turn in book.turns(arm=name)
        }
        known = {turn: found for turn, found in estimates.items() if found is not None}
        turns = list(known)
        (line,) = axes.plot(turns, [known[turn].mean for turn in turns], "-o", markersize=3, label=name)
        axes.fill_between(
            turns, [known[t].low for t in turns], [known[t].high for t in turns], color=line.get_color(), alpha=0.12
        )
    for name, style in ((ORACLE, "--"), (BASE, ":")):
        reference = book.mean(book.lines(0, arm=name, profiles=PAIRS), "joint")
        if reference is not None:
            axes.axhline(reference.mean, color="grey", linewidth=1, linestyle=style, label=name)
    return _saved(figure, axes, path)


def _lives(book: Book, path: Path) -> Path | None:
    """Draw every long life by itself."""
    turns = book.turns(LIFE.name)
    cells = sorted({cell for turn in turns for cell in book.lines(turn, LIFE.name, profiles=EVERYBODY)})
    if not cells:
        return None
    figure, axes = _axes("preference rate (joint)")
    for profile, seed in cells:
        at = {turn: book.lines(turn, LIFE.name, profiles=EVERYBODY).get((profile, seed)) for turn in turns}
        known: Sequence[tuple[int, float]] = [(turn, line["joint"]) for turn, line in at.items() if line]
        axes.plot(*zip(*known, strict=True), "-o", markersize=3, label=f"{profile} / {seed}")
    return _saved(figure, axes, path)


def _axes(label: str) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5), dpi=120)
    axes.set(xlabel="follow-ups", ylabel=label, ylim=(-0.03, 1.03))
    axes.grid(alpha=0.25)
    return figure, axes


def _saved(figure: Any, axes: Any, path: Path) -> Path:
    from matplotlib import pyplot

    axes.legend(fontsize=7)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    pyplot.close(figure)
    return path
