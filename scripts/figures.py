"""Print every recorded figure as one table, missed ones first (`make figures`).

Exits with 1 when a file does not have the declared form; a missed goal is reported, not an error.
"""

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from personalize.errors import InvalidParameter
from personalize.reporting.figures import Figure, load

ROOT = Path(__file__).resolve().parents[1]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=ROOT, help="folder that holds docs/figures")
    folder = parser.parse_args(argv).root / "docs" / "figures"
    rows: list[tuple[str, Figure]] = []
    broken = 0
    for path in sorted(folder.glob("*.json")):
        try:
            rows += [(path.stem, figure) for figure in load(path)]
        except InvalidParameter as error:
            broken += 1
            print(f"{path.name}: {error.message}", file=sys.stderr)
    show(rows, Console(width=None if sys.stdout.isatty() else 160))
    return 1 if broken else 0


def show(rows: list[tuple[str, Figure]], console: Console) -> None:
    table = Table(*("area", "figure", "value", "goal", "state", "n", "device", "date", "command"))
    for area, row in sorted(rows, key=_order):
        value = "—" if row.value is None else f"{row.value:.4g} {row.unit}"
        n = "" if row.n is None else str(row.n)
        table.add_row(area, row.figure, value, row.goal or "", state(row), n, row.device, row.date, row.command)
    console.print(table)
    missed = sum(row.met is False for _, row in rows)
    unmeasured = sum(row.value is None for _, row in rows)
    console.print(f"{len(rows)} figures: {missed} missed, {unmeasured} not measured")


def state(row: Figure) -> str:
    """Return ``met``, ``missed by …``, ``not measured: …`` or nothing for a figure without a goal."""
    if row.value is None:
        return f"not measured: {row.reason}"
    if row.met is False:
        return f"missed by {row.shortfall:.3g}"
    return "met" if row.met else ""


def _order(item: tuple[str, Figure]) -> tuple[int, str, str]:
    area, row = item
    rank = 0 if row.met is False else 1 if row.value is None else 2 if row.met else 3
    return rank, area, row.figure


if __name__ == "__main__":
    sys.exit(main())
