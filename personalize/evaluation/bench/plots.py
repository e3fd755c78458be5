"""A picture of every row of measurements that belong to one curve."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from personalize.evaluation.bench.report import Record

Curves = Mapping[tuple[str, str], Sequence[tuple[float, float]]]
"""Model and device -> points."""


def draw(records: Sequence[Record], folder: Path) -> list[Path]:
    """Draw every curve that has at least two points for some model; return the pictures."""
    return [_draw(name, _curves(name, records), _unit(name, records), folder) for name in _names(records)]


def pictures(records: Sequence[Record], folder: Path) -> list[Path]:
    """Return where ``draw`` puts its pictures of ``records``."""
    return [_path(name, folder) for name in _names(records)]


def _names(records: Sequence[Record]) -> list[str]:
    names = sorted({one["curve"][0] for one in _points(records)})
    return [name for name in names if any(len(points) > 1 for points in _curves(name, records).values())]


def _points(records: Sequence[Record]) -> list[Record]:
    return [one for one in records if one["curve"] and one["value"] is not None]


def _curves(name: str, records: Sequence[Record]) -> Curves:
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for one in _points(records):
        if one["curve"][0] == name:
            found.setdefault((one["model"], one["device"]), []).append((one["curve"][1], one["value"]))
    return {whose: sorted(found[whose]) for whose in sorted(found)}


def _unit(name: str, records: Sequence[Record]) -> str:
    return next(one["unit"] for one in _points(records) if one["curve"][0] == name)


def _path(name: str, folder: Path) -> Path:
    return folder / (re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") + ".png")


def _draw(name: str, curves: Curves, unit: str, folder: Path) -> Path:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.6), dpi=120)
    for (model, device), points in curves.items():
        axes.plot(*zip(*points, strict=True), "-o", markersize=4, label=f"{model}, {device}")
    axes.set(
        title=name,
        ylabel=unit,
        ylim=(0, 1.15 * max(value for points in curves.values() for _, value in points)),
    )
    axes.grid(alpha=0.25)
    axes.legend(fontsize=7)
    figure.tight_layout()
    path = _path(name, folder)
    folder.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    figure.savefig(draft, format="png")
    draft.replace(path)
    pyplot.close(figure)
    return path
