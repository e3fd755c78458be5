"""``make bench-gpu`` as it runs without a GPU: all of its code, with tiny shapes, and no figure."""

from types import SimpleNamespace

import pytest

from personalize.evaluation.bench import gpu, gpu_serving
from personalize.evaluation.bench.plan import Part
from personalize.evaluation.bench.subject import QWEN3_600M, SHAPES
from tests.evaluation.bench import SCALE, tiny


@pytest.mark.slow  # every benchmark of the GPU's suite, once
def test_the_whole_suite_runs_on_a_cpu_and_writes_nothing(tmp_path, capsys):
    words = ["--device", "cpu", "--out", str(tmp_path / "out"), "--figures", str(tmp_path)]
    assert gpu.main(words) == 0
    shown = capsys.readouterr().out
    assert "failed" not in shown and not list(tmp_path.iterdir())
    for cell in gpu.CELLS:
        assert f"{cell.model}: {cell.figure}: not run {cell.goal}" in shown
    assert shown.count("tiny model: ") > 20


def test_what_has_a_goal_is_planned_under_the_very_name_that_it_is_measured_with():
    """A goal whose figure is spelled otherwise would say "not run" for ever."""
    planned = {(part.model, name) for part in gpu.PARTS for name in part.names}
    assert {name for _, name in planned} <= set(gpu.GPU_BENCHMARKS)
    rows = gpu.run([Part("tiny", ["traffic", "compiled", "distinct"], SCALE)], lambda _: tiny(), float("inf"))
    named = {one["figure"] for one in rows}
    assert {gpu_serving.traffic_figure(SCALE.batch), gpu_serving.compiled_figure(SCALE.batch)} <= named
    assert all(one["value"] > 0 and one["goal"] is None for one in rows), "a tiny model has no goals"


def test_a_measured_cell_takes_the_place_of_one_that_was_not_run():
    cell = gpu.CELLS[0]
    one = {"model": cell.model, "figure": cell.figure, "value": 1.05, "unit": "x", "goal": cell.goal, "reason": None}
    found = gpu.cells([one])
    assert found[0] is one and len(found) == len(gpu.CELLS)
    assert all(other["value"] is None and "not measured" in other["reason"] for other in found[1:])


def test_nothing_is_begun_after_the_time_is_over():
    rows = gpu.run([Part("tiny", ["traffic", "users"], SCALE)], lambda _: tiny(), until=0.0)
    assert [one["value"] for one in rows] == [None, None] and "the time was over" in rows[0]["reason"]


def test_the_traffic_bound_is_the_share_of_the_adapters_weights():
    """Checked against the arithmetic for the 0.6B shape: 0.11 % per rank, so 64 users of rank 8 add a half."""
    subject = tiny()
    one, many = (gpu_serving.traffic_bound(subject.base, num, 8) for num in (1, 4))
    assert many - 1 == pytest.approx(4 * (one - 1)) and one > 1
    wide, deep = QWEN3_600M.hidden_size, QWEN3_600M.intermediate_size
    queries, keys = 2048, 1024
    layer = [(wide, queries), (wide, keys), (wide, keys), (queries, wide), (wide, deep), (wide, deep), (deep, wide)]

    targets = {f"{n}.{m}": shape for n in range(28) for m, shape in enumerate(layer)}
    base = SimpleNamespace(targets=targets, config=QWEN3_600M, vocab_size=QWEN3_600M.vocab_size)
    assert gpu_serving.traffic_bound(base, 1, 1) - 1 == pytest.approx(0.00106, rel=0.02)


def test_models_and_labels_are_those_of_the_table():
    assert {part.model for part in gpu.PARTS} <= {*SHAPES, "4b"}
    assert {cell.model for cell in gpu.CELLS} <= {label for label, _ in SHAPES.values()}
