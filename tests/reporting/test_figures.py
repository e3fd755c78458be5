"""The figures file: its form, its merging, what it refuses."""

import json

import pytest

from personalize.errors import InvalidParameter
from personalize.reporting.figures import Figure, load, measured, parse, record

FIELDS = {"figure", "value", "unit", "goal", "met", "device", "n", "date", "command", "reason"}


def rate(value=0.95, **changed) -> Figure:
    row = dict(unit="share", goal="≥ 0.9", device="cpu", n=100, command="make demo")
    return measured("rate", value, **{**row, **changed})


def test_a_record_has_the_ten_fields(tmp_path):
    path = record("loop", [rate()], tmp_path)
    assert path == tmp_path / "docs" / "figures" / "loop.json"
    (row,) = json.loads(path.read_text())
    assert set(row) == FIELDS
    assert row["met"] is True
    assert load(path) == [rate()]


def test_a_missing_value_needs_a_reason():
    row = rate(None, reason="no GPU here")
    assert row.met is None
    with pytest.raises(InvalidParameter, match="reason"):
        rate(None)


@pytest.mark.parametrize(
    ("value", "goal", "met", "shortfall"),
    [
        (0.9, "≥ 0.9", True, 0),
        (0.87, "≥ 0.9", False, 0.03),
        (0.1, "≤ 0.1", True, 0),
        (12, "< 12", False, 0),
        (1, "= 1", True, 0),
        (0, "= 1", False, 1),
        (1e-6, "≤ 1e-5", True, 0),
        (0.5, None, None, None),
    ],
)
def test_met_and_shortfall_follow_from_value_and_goal(value, goal, met, shortfall):
    row = rate(value, goal=goal)
    assert row.met is met
    assert row.shortfall == (shortfall if shortfall is None else pytest.approx(shortfall))


def test_a_yes_or_no_counts_as_one_or_zero():
    assert rate(True, goal="= 1").value == 1


def test_a_goal_may_be_typed_on_any_keyboard(tmp_path):
    row = dict(figure="a", value=True, unit="", goal=">= True", met=True, device="cpu", n=1, date="2026-01-01")
    path = record("loop", [row | {"command": "c", "reason": None}, rate(0.1, goal="<= 0.1")], tmp_path)
    assert [(row.value, row.goal) for row in load(path)] == [(1, "≥ 1"), (0.1, "≤ 0.1")]


def test_a_newer_measurement_replaces_the_older_of_the_same_device(tmp_path):
    record("loop", [rate(0.5), rate(0.6, device="gpu")], tmp_path)
    path = record("loop", [rate(0.95)], tmp_path)
    assert {(row.device, row.value) for row in load(path)} == {("cpu", 0.95), ("gpu", 0.6)}


def test_plain_objects_are_taken_too(tmp_path):
    row = dict(figure="a", value=1, unit="ms", goal=None, met=None, device="cpu", n=1, date="2026-01-01", command="c")
    path = record("loop", [row], tmp_path)
    assert load(path)[0].reason is None


@pytest.mark.parametrize(
    "changed",
    [
        {"met": True},
        {"goal": "at least 0.9"},
        {"value": "0.8"},
        {"value": float("nan")},
        {"n": -1},
        {"date": "yesterday"},
        {"device": ""},
        {"extra": 1},
    ],
)
def test_a_malformed_row_is_refused_and_the_file_stays(tmp_path, changed):
    path = record("loop", [rate()], tmp_path)
    before = path.read_bytes()
    good = json.loads(before)[0] | {"value": 0.8, "met": False}
    with pytest.raises(InvalidParameter):
        record("loop", [good | changed], tmp_path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("text", ["{}", "not json", '[{"figure": "a"}]'])
def test_a_damaged_file_is_named(tmp_path, text):
    path = tmp_path / "loop.json"
    path.write_text(text)
    with pytest.raises(InvalidParameter):
        load(path)


def test_an_area_is_a_plain_name(tmp_path):
    with pytest.raises(InvalidParameter, match="area"):
        record("../loop", [rate()], tmp_path)


def test_an_object_that_is_no_figure_is_refused():
    with pytest.raises(InvalidParameter, match="figure"):
        parse({"figure": "a"})
