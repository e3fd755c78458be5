"""The study as a page: learning curves, arms, controls, goals."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from personalize.evaluation.study.arms import ARMS
from personalize.evaluation.study.book import Book
from personalize.evaluation.study.curves import draw
from personalize.evaluation.study.goals import EVERYBODY
from personalize.evaluation.study.profiles import CONTRADICTING, PAIRS
from personalize.evaluation.study.scripts import names
from personalize.evaluation.study.statistics import Estimate, area, estimate, turns_to
from personalize.evaluation.study.tally import applied_share
from personalize.reporting.figures import Figure

LEVEL = 0.8
_NONE = "·"
_INTRODUCTION = """# Learning study

Simulated users with preferences that a rule can check, run as users of one service through the public SDK: the code
that production runs. A rate is measured on the same fresh prompts for every arm, seed and version: fresh chats,
held-out topics, held-out wordings, temperature 1, top-p 1. A *follow-up* is any user message after a reply. Brackets
hold 95 % bootstrap intervals over cells; a cell is one user under one arm with one seed. This page is written by the
study; every number comes from the JSON lines beside it.
"""


def write(book: Book, figures: Sequence[Figure], folder: Path, model: str = "pocket") -> Path:
    """Write report.md and its pictures into ``folder``; return the page's path. Other models have pages beside it."""
    suffix = "" if model == "pocket" else f"-{Path(model).name}"
    pictures = [f"![{path.stem}]({path.name})" for path in draw(book, folder, suffix)]
    sections = [
        _INTRODUCTION,
        *pictures,
        _section("Goals", _goals(figures)),
        _section("Preference rate after so many follow-ups (joint, two-preference users)", _curves(book)),
        _section("Arms at their last checkpoint (all profiles)", _arms(book)),
        _section("Controls", _controls(book)),
    ]
    path = folder / f"report{suffix}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n".join(section.strip() for section in sections) + "\n", encoding="utf-8")
    return path


def _goals(figures: Sequence[Figure]) -> str:
    def row(one: Figure) -> list[str]:
        met = {True: "met", False: "**missed**", None: _NONE}[one.met]
        value = _NONE if one.value is None else f"{one.value:g} {one.unit if one.unit != 'share' else ''}".strip()
        return [one.figure, value, one.goal or _NONE, met, str(one.n or _NONE), one.reason or ""]

    return _table(("quantity", "value", "goal", "", "n", "remark"), map(row, figures))


def _curves(book: Book) -> str:
    turns = sorted({turn for arm in book.arms() for turn in book.turns(arm=arm)})
    rows = []
    for arm in book.arms():
        means = [book.mean(book.lines(turn, arm=arm, profiles=PAIRS), "joint") for turn in turns]
        rows.append([arm, *map(_estimate, means), _number(_area(book, arm)), _turns(book, arm)])
    return _table(("arm", *map(str, turns), "area", f"turns to {LEVEL}"), rows)


def _cell_curves(book: Book, arm: str) -> list[list[tuple[int, float]]]:
    curves: dict[tuple[str, int], list[tuple[int, float]]] = {}
    for turn in book.turns(arm=arm):
        for cell, line in book.lines(turn, arm=arm, profiles=PAIRS).items():
            curves.setdefault(cell, []).append((turn, line["joint"]))
    return list(curves.values())


def _area(book: Book, arm: str) -> float | None:
    areas = [found for curve in _cell_curves(book, arm) if (found := area(curve)) is not None]
    mean = estimate(areas)
    return None if mean is None else mean.mean


def _turns(book: Book, arm: str) -> str:
    """Return the mean first checkpoint at ``LEVEL``, and how many cells never got there."""
    found = [turns_to(LEVEL, curve) for curve in _cell_curves(book, arm) if len(curve) > 1]
    there = [turn for turn in found if turn is not None]
    never = f" ({len(found) - len(there)} of {len(found)} never)" if len(there) < len(found) else ""
    return (f"{sum(there) / len(there):.1f}" if there else _NONE) + never


_FIELDS = (
    ("joint", "joint"), ("mean", "mean"), ("correct", "correct"), ("sums", "sums"), ("refusals", "refusals"),
    ("capped", "cap share"), ("tokens", "tokens"), ("kl", "KL to base"), ("update_ms", "update ms"), ("bytes", "bytes"),
)  # fmt: skip


def _arms(book: Book) -> str:
    rows = []
    for arm in book.arms():
        turn = book.turns(arm=arm)[-1]
        lines = book.lines(turn, arm=arm, profiles=EVERYBODY)
        worst = min(book.values(lines, "joint"), default=None)
        tallies = [line["outcomes"] for line in lines.values()]
        shares = [applied_share(tallies, complaints=complaints) for complaints in (True, False)]
        fields = [_mean(book.mean(lines, name)) for name, _ in _FIELDS]
        applied = [_number(found and found[0]) for found in shares]
        rows.append([arm, str(turn), str(len(lines)), *fields, _number(worst), *applied, ARMS[arm].digest])
    heads = (
        "arm",
        "turn",
        "cells",
        *(head for _, head in _FIELDS),
        "worst",
        "complaints applied",
        "others applied",
        "recipe",
    )
    return _table(heads, rows)


def _controls(book: Book) -> str:
    everybody = EVERYBODY | {CONTRADICTING.name}
    rows = []
    for control in names():
        for turn in book.turns(control):
            lines = book.lines(turn, control, profiles=everybody)
            fields = [_estimate(book.mean(lines, name)) for name in ("joint", "mean", "donor_joint", "correct")]
            shares = [applied_share([line["outcomes"] for line in lines.values()], complaints=c) for c in (True, False)]
            applied = [_number(found and found[0]) for found in shares]
            rows.append([control, str(turn), str(len(lines)), *fields, _mean(book.mean(lines, "kl")), *applied])
    heads = (
        "control",
        "turn",
        "cells",
        "joint",
        "mean",
        "donor's joint",
        "correct",
        "KL to base",
        "complaints applied",
        "others applied",
    )
    return _table(heads, rows)


def _section(title: str, body: str) -> str:
    return f"## {title}\n\n{body}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    found = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    return "\n".join(found) if len(found) > 2 else "Nothing has been measured yet."


def _estimate(found: Estimate | None) -> str:
    return _NONE if found is None else str(found)


def _mean(found: Estimate | None) -> str:
    return _NONE if found is None else _number(found.mean)


def _number(value: float | None) -> str:
    if value is None:
        return _NONE
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3f}"
