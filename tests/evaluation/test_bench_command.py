"""The benchmarks' command: what runs on which model, and what an interrupted or cut run leaves behind."""

import json
import shlex

import pytest

from personalize.evaluation.bench import command
from personalize.evaluation.bench.plan import BENCHMARKS, SIZES, Part
from personalize.evaluation.bench.rows import LEFT_OUT, Row
from personalize.evaluation.bench.scale import Scale
from personalize.evaluation.bench.subject import SHAPES
from personalize.reporting.figures import load
from tests.evaluation.bench import SCALE, tiny


@pytest.fixture(scope="module")
def subject():
    return tiny()


@pytest.fixture()
def bench(subject, monkeypatch, tmp_path):
    """A function that runs the command with these benchmarks (a row, an error or a function) and returns its status."""
    monkeypatch.setattr(command, "load_subject", lambda *_: subject)

    def run(*words, **benchmarks):
        for name, told in benchmarks.items():
            monkeypatch.setitem(command.BENCHMARKS, name, giving(told))
        monkeypatch.setitem(command.SIZES, "short", [Part("pocket", list(benchmarks), SCALE)])
        return command.main(["--out", str(tmp_path / "out"), "--figures", str(tmp_path), *words])

    return run


def giving(told):
    def benchmark(*_):
        if isinstance(told, BaseException):
            raise told
        return [told]

    return told if callable(told) else benchmark


def written(tmp_path):
    """Return value by figure, from the raw file and from the figures, which must agree about what is measured."""
    raw = {one["figure"]: one["value"] for one in json.loads((tmp_path / "out" / "speed.json").read_text())["rows"]}
    figures = {one.figure.removesuffix(", tiny model"): one.value for one in load(tmp_path / "docs/figures/speed.json")}
    measured = {name: value for name, value in raw.items() if value is not None}
    assert measured.items() <= figures.items()
    return raw


def test_an_interrupted_run_keeps_what_was_measured(bench, tmp_path, capsys):
    assert bench(first=Row("a", 1.0), second=Row("b", 2.0), third=KeyboardInterrupt()) == 130
    assert written(tmp_path) == {"a": 1.0, "b": 2.0}
    assert "interrupted" in capsys.readouterr().out
    assert not list(tmp_path.rglob("*.tmp")), "files are replaced as a whole"
    table = (tmp_path / "out" / "README.md").read_text()
    assert "| a | 1 x |" in table and "| b | 2 x |" in table


def test_results_are_in_the_files_when_the_next_benchmark_begins(bench, tmp_path):
    seen = []

    def second(*_):
        seen.append(written(tmp_path))
        return [Row("b", 2.0)]

    assert bench(first=Row("a", 1.0), second=second) == 0
    assert seen == [{"a": 1.0}] and written(tmp_path) == {"a": 1.0, "b": 2.0}


def test_a_cut_run_replaces_no_measurement_and_is_no_time_of_the_whole(bench, tmp_path):
    part = Row("b", None, reason=LEFT_OUT)
    assert bench(first=Row("a", 1.0), second=Row("b", 2.0)) == 0
    whole = {one.figure: one.value for one in load(tmp_path / "docs/figures/speed.json")}
    assert whole["wall time of the short benchmarks"] is not None
    before = written(tmp_path)
    assert bench("--max-minutes", "0", first=Row("a", 3.0), second=Row("b", 4.0), third=Row("c", 5.0)) == 0
    assert written(tmp_path) == {**before, "benchmark third": None}
    assert bench(second=part) == 0
    assert written(tmp_path)["b"] == 2.0
    assert bench(third=Row("c", 5.0)) == 0
    assert written(tmp_path) == {**before, "c": 5.0}


def test_figures_keep_a_value_whose_raw_record_is_elsewhere(bench, tmp_path):
    assert bench(first=Row("a", 1.0)) == 0
    assert bench("--out", str(tmp_path / "other"), first=Row("a", None, reason=LEFT_OUT)) == 0
    assert {one.figure: one.value for one in load(tmp_path / "docs/figures/speed.json")}["a, tiny model"] == 1.0


def test_a_benchmark_that_fails_is_told_and_the_next_one_runs(bench, tmp_path, capsys):
    assert bench(swap=RuntimeError("no room"), first=Row("a", 1.0)) == 1
    shown = capsys.readouterr().out
    assert "failed: RuntimeError: no room" in shown and "tiny model: a: 1 x" in shown
    assert "no room" in (tmp_path / "out" / "README.md").read_text()
    assert "wall time of the short benchmarks" not in (tmp_path / "docs/figures/speed.json").read_text()
    assert bench(swap=Row("a", None, reason="not what it should be")) == 0
    assert written(tmp_path)["a"] is None, "what was tried and gave nothing is no longer measured"


def test_nothing_is_begun_after_the_time_is_over(subject):
    part = Part("tiny", ["distinct"], SCALE)
    ((one,),) = command.measure(subject, part, "make bench", until=0.0)
    assert one["value"] is None and "the time was over" in one["reason"] and one["benchmark"] == "distinct"


def parts(*words):
    return command._parts(command._parser().parse_args(words))


def test_options_choose_model_benchmarks_and_rounds():
    (part,) = parts("--model", "0.6b", "--only", "update,distinct", "--rounds", "1", "--loads", "4,16")
    assert (part.model, part.names, part.scale.rounds) == ("0.6b", ["distinct", "update"], 1)
    assert part.scale.loads == (4, 16)
    assert {part.model for part in parts("--model", "135m")} == {"135m"}
    for words in (("--only", "nothing"), ("--loads", "0"), ("--loads", "many")):
        with pytest.raises(SystemExit):
            command._parser().parse_args(words)


def test_one_benchmark_has_the_scale_of_the_size_that_it_is_taken_from():
    for size in SIZES:
        for part in SIZES[size]:
            for name in part.names:
                alone = parts("--size", size, "--only", name, "--model", part.model)
                assert [(one.names, one.scale) for one in alone] == [([name], part.scale)]
    assert [(one.model, one.names) for one in parts("--only", "swap")] == [("135m", ["swap"])], "where it is planned"
    (unplanned,) = parts("--only", "store", "--model", "pocket")
    assert unplanned.scale.store_users == Scale().store_users, "the size of the goal"


def test_the_command_that_is_recorded_repeats_the_measurement():
    def recorded(*words):
        return command._command(command._parser().parse_args(words))

    assert recorded() == recorded("--max-minutes", "7.5", "--out", "x", "--figures", "y") == "make bench"
    assert recorded("--size", "full") == "make bench-full"
    words = ("--size", "full", "--model", "135m", "--only", "load,swap", "--loads", "4,16", "--store-users", "9")
    told = recorded(*words, "--device", "cpu", "--max-minutes", "3", "--out", "x")
    target, options = shlex.split(told)[1:]
    assert target == "bench-full" and options.startswith("ARGS=")
    assert options.removeprefix("ARGS=").split() == [*words[2:], "--device", "cpu"]
    again = ("--size", "full", *options.removeprefix("ARGS=").split())
    assert recorded(*again) == told and parts(*again) == parts(*words)


def test_sizes_know_their_models_and_benchmarks():
    for size in SIZES.values():
        assert {part.model for part in size} <= set(SHAPES)
        assert all(set(part.names) <= set(BENCHMARKS) and part.names for part in size)
        planned = [(part.model, name) for part in size for name in part.names]
        assert len(planned) == len(set(planned)), "nothing is measured twice"
    short = {(part.model, name) for part in SIZES["short"] for name in part.names}
    assert short <= {(part.model, name) for part in SIZES["full"] for name in part.names}
    assert any("store" in part.names and part.scale.store_users == 1_000_000 for part in SIZES["full"])
