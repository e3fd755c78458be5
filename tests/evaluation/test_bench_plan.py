"""The short size has a value for everything that docs/acceptance.md wants of the model that its goals name.

Only what is measured is looked at, and under which name; the measuring itself is left out, so that it takes seconds.
"""

from collections import Counter
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from types import SimpleNamespace

import pytest

from personalize.evaluation.bench import (
    decode,
    load,
    many_updates,
    memory,
    overload,
    publish,
    streams,
    throughput,
    update,
)
from personalize.evaluation.bench.plan import BENCHMARKS, SIZES
from personalize.evaluation.bench.samples import Samples
from personalize.evaluation.bench.subject import GOAL_SHAPE, SHAPES
from scripts.acceptance import read
from tests.evaluation.bench import tiny

ACCEPTANCE = Path(__file__).resolve().parents[2] / "docs" / "acceptance.md"
GOALS = SHAPES[GOAL_SHAPE][0]
LEFT_TO_THE_FULL_SIZE = {"3.M5c": "printed, without a goal", "3.M14": "a million users take a minute"}


def answering(value):
    """Return a coroutine function that gives ``value`` whatever it is asked."""

    async def answer(*_):
        return value

    return answer


def untimed(sides, rounds):
    if "rate" in sides:  # it notes something beside its time
        sides["rate"]()
    return Samples({name: [1.0] for name in sides})


@pytest.fixture()
def planned(monkeypatch):
    """The rows of the short size by the names of their figures, as if everything took a millisecond."""
    for module in (decode, load, many_updates, publish, throughput, update):
        monkeypatch.setattr(module, "in_turn", untimed)
    monkeypatch.setattr(update, "gemm_rate", lambda *_: 1e9)
    monkeypatch.setattr(throughput, "step_side", lambda *_: lambda: 1.0)
    monkeypatch.setattr(overload, "update_side", lambda *_: lambda: 1.0)
    monkeypatch.setattr(load, "_run", answering(load.Run(1.0, [1.0], [1.0])))
    monkeypatch.setattr(overload, "_run", answering(([1.0], Counter())))
    monkeypatch.setattr(publish, "_swap", answering(([1.0], 1.0)))
    monkeypatch.setattr(streams, "_runs", lambda *_: [streams.Gaps(1.0, 1.0)])
    found = '{"rss_bytes": 4, "base_bytes": 1, "slots_bytes": 3}'
    process = SimpleNamespace(returncode=0, stdout=found, stderr="")
    monkeypatch.setattr(memory, "subprocess", SimpleNamespace(run=lambda *_, **__: process))
    rows = {}
    for part in SIZES["short"]:
        subject = replace(tiny(), name=part.model, label=SHAPES[part.model][0])
        measured = [row for name in part.names for row in BENCHMARKS[name](subject, part.scale)]
        rows |= {f"{row.figure}, {subject.label}": row for row in measured}
    return rows


def test_the_short_size_has_a_value_for_every_goal(planned):
    wanted = {one.id: one.figures for one in read(ACCEPTANCE) if one.id.startswith("3.M") and one.figures}
    assert len(wanted) > 15 and LEFT_TO_THE_FULL_SIZE.keys() <= wanted.keys()
    measured = {name: row for name, row in planned.items() if row.value is not None}
    for number, figures in wanted.items():
        for figure in figures:
            matching = [row for name, row in measured.items() if fnmatchcase(name, figure)]
            if number in LEFT_TO_THE_FULL_SIZE:
                assert not matching, f"{number} is measured after all"
            else:
                assert matching and all(row.goal for row in matching), f"nothing measures {figure} for its goal"


def test_loads_that_have_a_goal_and_no_time_say_so(planned):
    kept = {
        num: planned[f"throughput kept with learning, {num} streams, over the bound, {GOALS}"] for num in (1, 4, 16)
    }
    assert {num: row.is_left_out for num, row in kept.items()} == {1: False, 4: True, 16: True}
    assert {row.goal for row in kept.values()} == {"≥ 0.8"}
    assert planned[f"freshness p95 with learning, 16 streams, in replies, {GOALS}"].goal == "≤ 3"
