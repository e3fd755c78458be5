"""`make accept`: what it runs, what it reads, what it writes."""

import json

import pytest

from scripts import accept
from scripts.acceptance import Row, parse_row, read, write

TABLE = """# Acceptance

Text that stays.

| id | clause | shown by | class | last result | date |
|---|---|---|---|---|---|
| 1.1a | works | `tests/test_a.py::test_good` | fast | missing |  |
| 1.1b | broken | `tests/test_a.py::test_bad` | fast | missing |  |
| 1.1c | not there | `tests/test_a.py::test_absent` | fast | missing |  |
| 1.1d | takes long | `tests/test_a.py::test_slow` | slow | missing |  |
| 1.1e | a goal | `make demo` `figure:rate` | long | missing |  |
| 1.1f | by hand | `make demo` | long | missing |  |
"""
TESTS = """
import pytest
@pytest.mark.parametrize("n", [1, 2])
def test_good(n): assert n
@pytest.mark.parametrize("n", [1, 0])
def test_bad(n): assert n
def test_slow(): raise RuntimeError("must not run")
"""


@pytest.fixture()
def root(tmp_path):
    (tmp_path / "docs" / "figures").mkdir(parents=True)
    (tmp_path / "tests").mkdir()
    (tmp_path / "docs" / "acceptance.md").write_text(TABLE)
    (tmp_path / "tests" / "test_a.py").write_text(TESTS)
    return tmp_path


def figure(**changed) -> dict:
    row = dict(figure="rate", value=0.87, unit="share", goal="≥ 0.9", met=False, device="cpu", n=9, date="2026-01-02")
    return {**row, "command": "make demo", "reason": None, **changed}


def results(root) -> dict[str, str]:
    return {row.id: row.result for row in read(root / "docs" / "acceptance.md")}


def test_fast_rows_run_and_the_table_is_updated(root, capfd):
    assert accept.main(["--root", str(root), "--write"]) == 1
    assert results(root) == {
        "1.1a": "passed",
        "1.1b": "failed",
        "1.1c": "missing",
        "1.1d": "not run: no result recorded yet",
        "1.1e": "missing",
        "1.1f": "missing",
    }
    assert (root / "docs" / "acceptance.md").read_text().startswith(TABLE.split("| 1.1a")[0])
    assert "6 clauses: 1 built, 1 failed, 3 missing" in capfd.readouterr().out


def test_without_write_the_table_stays(root):
    accept.main(["--root", str(root), "--no-run"])
    assert (root / "docs" / "acceptance.md").read_text() == TABLE


def test_a_missed_figure_says_by_how_much(root, capsys):
    (root / "docs" / "figures" / "loop.json").write_text(json.dumps([figure()]))
    accept.main(["--root", str(root), "--no-run", "--write"])
    assert results(root)["1.1e"] == "missed by 0.03 (0.87 share, goal ≥ 0.9)"
    assert "missed by 0.03" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changed", "result"),
    [
        ({"value": 0.95, "met": True}, "met 0.95 share"),
        ({"value": None, "met": None, "reason": "no GPU"}, "not run: no GPU"),
        ({"goal": None, "met": None}, "met 0.87 share"),
    ],
)
def test_other_figures(root, changed, result):
    (root / "docs" / "figures" / "loop.json").write_text(json.dumps([figure(**changed)]))
    assert accept.recorded_figures(root)["rate"] == (result, "2026-01-02")


def test_the_worst_device_counts_unless_one_is_named(root):
    rows = [figure(), figure(device="gpu", value=0.95, met=True)]
    (root / "docs" / "figures" / "loop.json").write_text(json.dumps(rows))
    found = accept.recorded_figures(root)
    assert found["rate"][0].startswith("missed")
    assert found["rate@gpu"][0].startswith("met")


def test_a_star_stands_for_the_worst_of_several(root):
    rows = [figure(figure="a: x"), figure(figure="a: y", value=0.95, met=True), figure(figure="b: y")]
    (root / "docs" / "figures" / "loop.json").write_text(json.dumps(rows))
    claim = Row("1.1a", "c", "`figure:a: *`", "long", "missing", "")
    assert accept.judge(claim, {}, accept.recorded_figures(root), root).result.startswith("missed by 0.03")


def test_slow_rows_take_the_newest_result_of_make_test(root):
    junit = '<testsuites><testsuite><testcase classname="tests.test_a" name="test_slow"/></testsuite></testsuites>'
    (root / "runs").mkdir()
    (root / "runs" / "junit.xml").write_text(junit)
    accept.main(["--root", str(root), "--no-run", "--write"])
    assert results(root)["1.1d"] == "passed"
    (root / "runs" / "junit.xml").unlink()
    accept.main(["--root", str(root), "--no-run", "--write"])
    assert results(root)["1.1d"] == "passed", "a recorded result stays"


@pytest.mark.parametrize(
    ("outcomes", "kind", "result"),
    [
        (["passed", "failed"], "fast", "failed"),
        (["passed", "not run: no server"], "fast", "passed"),
        (["passed", "not run: no server"], "postgres", "not run: no server"),
        (["not run: no server"], "fast", "not run: no server"),
        (["passed", "failed (expected: not yet)"], "fast", "failed (expected: not yet)"),
    ],
)
def test_skipped_parameters_count_where_the_row_is_about_what_they_need(root, outcomes, kind, result):
    claim = Row("1.1a", "c", "`tests/test_a.py::test_good`", kind, "missing", "")
    runs = {"tests/test_a.py::test_good": (outcomes, "2026-01-01")}
    assert accept.judge(claim, runs, {}, root).result == result


def test_an_expected_failure_is_no_pass(root):
    (root / "tests" / "test_a.py").write_text(
        "import pytest\n@pytest.mark.xfail(reason='later')\ndef test_good(): assert 0\n"
    )
    accept.main(["--root", str(root), "--write"])
    assert results(root)["1.1a"] == "failed (expected: later)"


def test_a_result_seen_by_hand_can_be_noted(root, capsys):
    assert accept.main(["--root", str(root), "--record", "1.1f", "passed"]) == 0
    assert results(root)["1.1f"] == "passed"
    assert accept.main(["--root", str(root), "--record", "1.9z", "passed"]) == 2
    assert "no row 1.9z" in capsys.readouterr().err


def test_node_ids_survive_the_way_through_junit():
    assert accept._node_id("tests.cli.test_a.TestB", "test_c[1-x]") == "tests/cli/test_a.py::TestB::test_c"
    assert accept._node_id("tests.test_a", "test_c") == "tests/test_a.py::test_c"


@pytest.mark.parametrize(
    "line",
    [
        "| 1.1a | too few | `x` | fast | missing |",
        "| 1.1a | c | `x` | quick | missing |  |",
        "| 1.1a | c | `x` | fast | done |  |",
        "| 1.1a | c | no token | fast | missing |  |",
    ],
)
def test_a_malformed_row_is_refused(line):
    with pytest.raises(ValueError, match=r"1\.1a"):
        parse_row(line)


def test_an_id_may_occur_once(root):
    table = root / "docs" / "acceptance.md"
    table.write_text(TABLE + "| 1.1a | again | `x` | fast | missing |  |\n")
    with pytest.raises(ValueError, match=r"1\.1a"):
        read(table)
    assert accept.main(["--root", str(root)]) == 2


def test_rows_survive_writing(tmp_path):
    row = Row("1.1a", "c", "`tests/a.py::test_b` and `make demo` `figure:rate`", "fast", "missing", "")
    assert parse_row(row.line()) == row
    assert (row.tests, row.figures, row.commands) == (("tests/a.py::test_b",), ("rate",), ("make demo",))
    table = tmp_path / "a.md"
    table.write_text("before\n" + row.line() + "\nafter\n")
    write(table, [Row("1.1a", "c", row.shown_by, "fast", "passed", "2026-01-01")])
    assert table.read_text().splitlines()[0::2] == ["before", "after"]
    assert read(table)[0].result == "passed"
