"""The benchmarks' files, command line, store and memory."""

import json
from dataclasses import replace

import pytest

from personalize.config import Settings
from personalize.errors import InvalidParameter
from personalize.evaluation.bench import memory, report, results, store
from personalize.evaluation.bench.rows import LEFT_OUT, Row
from personalize.evaluation.bench.serving import random_adapter
from personalize.evaluation.bench.store import multiply, publish_copy
from personalize.evaluation.bench.subject import load_subject
from personalize.model.folder import write_adapter
from personalize.reporting.figures import load
from personalize.updates.storage import open_store
from tests.evaluation.bench import SCALE, tiny


@pytest.fixture(scope="module")
def subject():
    return tiny()


def recorded(subject, *rows, benchmark="x"):
    return [report.record_of(row, subject, "make bench", 1.0, benchmark) for row in rows]


def test_goals_are_meant_for_one_shape(subject):
    assert subject.goal("≤ 1") is None
    assert replace(subject, name="135m").goal("≤ 1") == "≤ 1"


def test_an_unknown_shape_is_named():
    with pytest.raises(InvalidParameter, match="7b"):
        load_subject("7b")


def test_raw_file_table_pictures_and_figures_are_written(subject, tmp_path):
    rows = [
        Row("step by users", 1.2, goal="≤ 1.15", n=3, samples={"with": 1.2}, curve=("step", 1)),
        Row("step by many users", 1.1, goal="≤ 1.15", n=3, curve=("step", 4)),
        Row("after idle re-prefill", None, goal="≤ 0.2", reason="not built"),
    ]
    results.publish(recorded(subject, *rows), tmp_path / "out", tmp_path)
    assert "![step]" not in (tmp_path / "out" / "README.md").read_text(), "it is drawn at the end of a part"
    results.illustrate(tmp_path / "out")
    raw = json.loads((tmp_path / "out" / "speed.json").read_text())["rows"]
    assert raw[0]["machine"]["threads"] >= 1 and raw[0]["machine"]["torch"] and raw[0]["samples"] == {"with": 1.2}
    text = (tmp_path / "out" / "README.md").read_text()
    assert "| step by users | 1.2 x | ≤ 1.15 | **no** |" in text and "| not run | ≤ 0.2 |" in text
    assert "![step](step.png)" in text and (tmp_path / "out" / "step.png").stat().st_size > 1000
    assert "Not run: the tables above were measured on a CPU" in text
    figures = {one.figure: one for one in load(tmp_path / "docs" / "figures" / "speed.json")}
    assert figures["step by users, tiny model"].met is False and figures["step by users, tiny model"].shortfall
    absent = figures["after idle re-prefill, tiny model"]
    assert absent.value is None and absent.reason == "not built" and absent.met is None


def test_what_is_left_out_does_not_replace_a_measurement_and_a_failure_does(subject, tmp_path):
    measured, left = Row("a", 2.0), Row("a", None, reason=f"{LEFT_OUT}: the time was over")
    failed = Row("a", None, reason="failed: out of memory")
    old = recorded(subject, measured)
    assert [one["value"] for one in report.merged(old, recorded(subject, left))] == [2.0]
    assert [one["value"] for one in report.merged(old, recorded(subject, failed))] == [None]
    assert [one["value"] for one in report.merged([], recorded(subject, left))] == [None]
    assert [one["reason"] for one in report.merged(recorded(subject, failed), recorded(subject, left))] == [
        "failed: out of memory"
    ]


def test_the_row_of_a_whole_benchmark_lasts_until_it_runs_again(subject):
    measured, failed = Row("a", 2.0), Row(f"{report.BENCHMARK}x", None, reason="failed: no room")
    left = Row(f"{report.BENCHMARK}x", None, reason=f"{LEFT_OUT}: the time was over")
    crashed = recorded(subject, failed)
    assert report.merged(crashed, recorded(subject, measured)) == recorded(subject, measured)
    assert report.merged(crashed, recorded(subject, measured, benchmark="y"))[0] == crashed[0]
    assert report.merged(recorded(subject, measured), recorded(subject, left)) == recorded(subject, measured)
    assert len(report.merged(recorded(subject, measured), crashed)) == 2, "a failure stands beside older values"
    assert report.merged([], recorded(subject, left)) == recorded(subject, left)
    elsewhere = recorded(replace(subject, label="another model"), measured)
    assert len(report.merged(elsewhere, recorded(subject, left))) == 2


def test_the_loop_keeps_its_own_names_for_the_embedded_model(subject):
    rows = [Row(name, 1.5, goal="≤ 1.15") for name in report.LOOP]
    figures = report.loop_figures(recorded(subject, *rows), subject.label)
    assert [one.figure for one in figures] == list(report.LOOP.values()) and all(one.goal is None for one in figures)
    assert report.loop_figures(recorded(subject, *rows), "another model") == []


def test_copies_of_a_user_are_users_with_heads(subject, tmp_path):
    adapter, digest = tmp_path / "adapter", subject.base.base_digest
    write_adapter(adapter, random_adapter(subject.base, 0), subject.base)
    with open_store(Settings(home=tmp_path)) as opened:
        first = opened.ensure_user("first").user_id
        publish_copy(opened, digest, adapter, first, None)
        users = multiply(tmp_path / "index.sqlite", 30)
        assert len({first, *users}) == 31 and all(opened.head(user, digest).user_id == user for user in users)


def test_lookups_are_measured_while_versions_are_published(subject):
    warm, cold, start = store.measure(subject, replace(SCALE, publishes_per_s=0.1))
    assert warm.value > 0 and cold.value > 0 and start.value > 0
    assert warm.goal is None, "the goal is meant for a million users"
    assert "publishes/s beside it" in warm.reason


def test_lookups_beside_fewer_publishes_than_promised_have_no_value(subject):
    warm, cold, _ = store.measure(subject, replace(SCALE, publishes_per_s=1e6))
    assert warm.value is None and cold.value is None and "the most that could be kept up; p99 was" in warm.reason


def test_memory_counts_the_slots_of_warm_users(subject):
    found = memory.resident(subject, SCALE.known, SCALE.warm)
    linears = sum(8 * 4 * (d_in + d_out) for d_in, d_out in subject.base.targets.values())
    assert found["slots_bytes"] == SCALE.warm * linears and found["base_bytes"] > 0
    (row,) = memory.measure(subject, SCALE)
    assert row.value is None and "new process can load" in row.reason
