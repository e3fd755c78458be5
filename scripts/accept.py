"""Run the acceptance rows that take under a minute, and print built / missing / missed by how much (`make accept`).

Slow rows keep their last recorded result; a newer one is taken from runs/junit.xml, which `make test` leaves. Figures
are read from docs/figures. `--write` updates docs/acceptance.md in place, `--record ID RESULT` notes what was seen by
hand. Exits with 1 when a row failed, 2 when the table itself is broken.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.acceptance import EVERYWHERE, Row, read, write
from scripts.evidence import evidence

ROOT = Path(__file__).resolve().parents[1]
WORST_FIRST = ("failed", "missing", "missed", "not run", "met", "passed")
Results = dict[str, tuple[str, str]]
"""Name of a figure -> (result, day)."""
Runs = dict[str, tuple[list[str], str]]
"""Node id without parameters -> (results of all its parameters, day)."""


def main(argv: list[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    table = options.root / "docs" / "acceptance.md"
    try:
        rows = read(table)
    except ValueError as error:
        print(f"docs/acceptance.md: {error}", file=sys.stderr)
        return 2
    if options.record:
        return _record(table, rows, *options.record)
    results = recorded_tests(options.root / "runs" / "junit.xml")
    wanted = [row for row in rows if row.kind == "fast" and exists(row, options.root)]
    if wanted and not options.no_run:
        results |= run_tests(options.root, sorted({name for row in wanted for name in row.tests}))
    figures = recorded_figures(options.root)
    judged = [judge(row, results, figures, options.root) for row in rows]
    if options.write:
        write(table, judged)
    report(judged)
    return 1 if any(row.result == "failed" for row in judged) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="update docs/acceptance.md in place")
    parser.add_argument("--no-run", action="store_true", help="run nothing, only read what is recorded")
    parser.add_argument("--record", nargs=2, metavar=("ID", "RESULT"), help="note a result that was seen by hand")
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    return parser


def exists(row: Row, root: Path) -> bool:
    """Whether every test that the row names is defined."""
    return bool(row.tests) and all(evidence(root, name).exists for name in row.tests)


def run_tests(root: Path, nodes: list[str]) -> Runs:
    """Return the results of one pytest run over these tests."""
    with tempfile.TemporaryDirectory() as folder:
        junit = Path(folder) / "junit.xml"
        command = [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", f"--junitxml={junit}"]
        subprocess.run([*command, *nodes], cwd=root, check=False)
        return recorded_tests(junit)


def recorded_tests(junit: Path) -> Runs:
    """Return what a JUnit file says; nothing if there is no file."""
    if not junit.is_file():
        return {}
    day = time.strftime("%Y-%m-%d", time.gmtime(junit.stat().st_mtime))
    runs: Runs = {}
    for case in ElementTree.parse(junit).iter("testcase"):
        name = _node_id(case.get("classname", ""), case.get("name", ""))
        runs.setdefault(name, ([], day))[0].append(_outcome(case))
    return runs


def _node_id(classname: str, name: str) -> str:
    """``tests.cli.test_a.TestB`` and ``test_c[1]`` -> ``tests/cli/test_a.py::TestB::test_c``."""
    parts = classname.split(".")
    file_at = next((i for i, part in enumerate(parts) if part.startswith("test_")), len(parts) - 1)
    file = "/".join(parts[: file_at + 1]) + ".py"
    return "::".join([file, *parts[file_at + 1 :], name.partition("[")[0]])


def _outcome(case: ElementTree.Element) -> str:
    if case.find("failure") is not None or case.find("error") is not None:
        return "failed"
    if (skipped := case.find("skipped")) is None:
        return "passed"
    reason = _one_line(skipped.get("message") or "no reason given")
    return f"failed (expected: {reason})" if skipped.get("type") == "pytest.xfail" else f"not run: {reason}"


def recorded_figures(root: Path) -> Results:
    """Return result and day of every recorded figure under its name and under name@device; the worst over devices."""
    results: Results = {}
    for path in sorted((root / "docs" / "figures").glob("*.json")):
        for figure in json.loads(path.read_text(encoding="utf-8")):
            verdict = _figure_result(figure), figure["date"]
            results[f"{figure['figure']}@{figure['device']}"] = verdict
            known = results.get(figure["figure"])
            results[figure["figure"]] = min(known, verdict, key=lambda pair: _rank(pair[0])) if known else verdict
    return results


def _figure_result(figure: dict) -> str:
    if figure["value"] is None:
        return "not run: " + _one_line(figure["reason"])
    shown = f"{figure['value']:.4g} {figure['unit']}"
    if figure["met"] is False:
        limit = float(figure["goal"].split()[1])
        return f"missed by {abs(figure['value'] - limit):.3g} ({shown}, goal {figure['goal']})"
    return f"met {shown}"


def judge(row: Row, tests: Runs, figures: Results, root: Path) -> Row:
    """Return the row with its result as the evidence has it now; rows that only name a command keep theirs."""
    found: list[tuple[str, str]] = []
    for name in row.tests:
        if not evidence(root, name).exists:
            found.append(("missing", ""))
        elif name in tests:
            outcomes, day = tests[name]
            found.append((_of_test(outcomes, row.kind), day))
    found += [_figure(name, figures) for name in row.figures]
    if not row.tests and not row.figures:
        return row
    if len(found) < len(row.tests) + len(row.figures):  # some tests were not run now: what was recorded still counts
        found.append((row.result, row.date) if row.is_claimed else ("not run: no result recorded yet", ""))
    result = worst([result for result, _ in found])
    day = next(day for outcome, day in found if outcome == result)
    return replace(row, result=result, date=day)


def _of_test(outcomes: list[str], kind: str) -> str:
    """The worst over a test's parameters; a skipped one counts where the row is about what it needs, or all are."""
    ran = [outcome for outcome in outcomes if not outcome.startswith("not run")]
    return worst(ran if ran and kind in EVERYWHERE else outcomes)


def _figure(name: str, figures: Results) -> tuple[str, str]:
    """The recorded figure; for a name that ends in ``*`` the worst of all that begin so."""
    matching = [pair for known, pair in figures.items() if known == name or fnmatchcase(known, name)]
    return min(matching, key=lambda pair: (_rank(pair[0]), -_distance(pair[0])), default=("missing", ""))


def _distance(result: str) -> float:
    return float(result.split()[2]) if result.startswith("missed by ") else 0.0


def worst(results: Iterable[str]) -> str:
    return min(results, key=_rank)


def _rank(result: str) -> int:
    return next(i for i, start in enumerate(WORST_FIRST) if result.startswith(start))


def _one_line(text: str, limit: int = 120) -> str:
    text = " ".join(text.replace("|", "/").split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _record(table: Path, rows: list[Row], row_id: str, result: str) -> int:
    for row in rows:
        if row.id == row_id:
            write(table, [replace(row, result=result, date=time.strftime("%Y-%m-%d", time.gmtime()))])
            read(table)
            return 0
    print(f"there is no row {row_id}; ids go from {rows[0].id} to {rows[-1].id}", file=sys.stderr)
    return 2


def report(rows: list[Row]) -> None:
    counts = {start: 0 for start in WORST_FIRST}
    for row in sorted(rows, key=lambda row: _rank(row.result)):
        start = WORST_FIRST[_rank(row.result)]
        counts[start] += 1
        if start not in ("passed", "met"):
            print(f"{row.id:<8} {row.result:<40} {row.clause}")
    built = counts["passed"] + counts["met"]
    others = ", ".join(f"{counts[start]} {start}" for start in WORST_FIRST[:4])
    print(f"{len(rows)} clauses: {built} built, {others}")


if __name__ == "__main__":
    sys.exit(main())
