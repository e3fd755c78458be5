"""What a run has measured, merged into the files of results and figures as soon as it is there."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from personalize.evaluation.bench.plots import draw, pictures
from personalize.evaluation.bench.report import BENCHMARK, Record, figures, load, loop_figures, merged, write
from personalize.evaluation.bench.rows import left_out
from personalize.evaluation.bench.subject import SHAPES
from personalize.reporting import figures as recorded
from personalize.reporting.figures import Figure


def publish(fresh: Sequence[Record], out: Path, root: Path) -> None:
    """Merge new records into raw file and table of ``out``, and record figures below ``root``.

    Each file is replaced as a whole, so whoever is interrupted leaves files that hold all that was published before.
    The table shows the pictures that are there; ``illustrate`` draws them anew.
    """
    records = merged(load(out), fresh)
    write(records, out, _drawn(records, out))
    new = [one for one in records if any(one is mine for mine in fresh) and not one["figure"].startswith(BENCHMARK)]
    _record("speed", figures(new), root)
    _record("loop", loop_figures(new, SHAPES["pocket"][0]), root)


def illustrate(out: Path) -> None:
    """Draw the pictures of what has been published to ``out``; it takes seconds, so not after every benchmark."""
    records = load(out)
    draw(records, out)
    write(records, out, _drawn(records, out))


def _drawn(records: Sequence[Record], out: Path) -> list[Path]:
    return [path for path in pictures(records, out) if path.exists()]


def _record(area: str, rows: Iterable[Figure], root: Path) -> None:
    """Record figures, but nothing that was left out in the place of a measurement."""
    path = root / "docs" / "figures" / f"{area}.json"
    standing = recorded.load(path) if path.exists() else []
    measured = {(one.figure, one.device) for one in standing if one.value is not None}
    kept = [one for one in rows if not (left_out(one.value, one.reason) and (one.figure, one.device) in measured)]
    if kept:
        recorded.record(area, kept, root)
