"""A picture of every row of measurements that belong to one curve."""

import re
from collections.abc import Sequence
from pathlib import Path

from personalize.evaluation.bench.report import Record


def draw(records: Sequence[Record], folder: Path) -> list[Path]:
    """Draw every curve that has at least two points for some model; return the pictures."""
    names = sorted({one["curve"][0] for one in records if one["curve"] and one["value"] is not None})
    return [path for name in names if (path := _draw(name, records, folder)) is not None]


def _draw(name: str, records: Sequence[Record], folder: Path) -> Path | None:
    mine = [one for one in records if one["curve"] and one["curve"][0] == name and one["value"] is not None]
    curves = {
        (model, device): sorted(
            (one["curve"][1], one["value"]) for one in mine if (one["model"], one["device"]) == (model, device)
        )
        for model, device in sorted({(one["model"], one["device"]) for one in mine})
    }
    if all(len(points) < 2 for points in curves.values()):
        return None
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.6), dpi=120)
    for (model, device), points in curves.items():
        axes.plot(*zip(*points, strict=True), "-o", markersize=4, label=f"{model}, {device}")
    axes.set(
        title=name,
        ylabel=mine[0]["unit"],
        ylim=(0, 1.15 * max(value for points in curves.values() for _, value in points)),
    )
    axes.grid(alpha=0.25)
    axes.legend(fontsize=7)
    figure.tight_layout()
    path = folder / (re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") + ".png")
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    pyplot.close(figure)
    return path
