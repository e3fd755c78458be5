"""The demo's cast and its verdict; the play itself is run by `make demo`."""

import pytest
from rich.console import Console

from personalize.evaluation.demo import FOLLOW_UPS, GOALS, cast, missed
from personalize.evaluation.stage import Row, Stage
from personalize.evaluation.users import Said
from personalize.types import Outcome, Reply, Usage

GOOD = {
    "preference_rate_before": 0.0, "preference_rate_after": 0.95, "preference_mean_after": 0.97,
    "worst_user_after": 0.9, "follow_ups": FOLLOW_UPS, "updates": 30, "update_ms_p50": 900.0, "cap_share": 0.0,
    "other_users_unchanged": True, "control_user_drift": 0.0,
}  # fmt: skip


def test_three_learners_share_no_dimension_and_one_does_not_learn():
    people = cast()
    learners = [person for person in people if person.learns]
    dimensions = [one.dimension for person in learners for one in person.user.preferences]
    assert len(learners) == 3 and len(people) == 4
    assert len(dimensions) == len(set(dimensions)) == 6


def test_a_good_run_misses_nothing():
    assert missed(GOOD) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("preference_rate_before", 0.11), ("preference_rate_after", 0.89), ("worst_user_after", 0.84),
        ("cap_share", 0.02), ("other_users_unchanged", False), ("control_user_drift", 0.04), ("follow_ups", 13),
    ],
)  # fmt: skip
def test_every_goal_can_be_missed(name, value):
    assert name in GOALS and missed(GOOD | {name: value}) == [name]


def test_the_stage_prints_lines_where_there_is_no_terminal(capsys):
    reply = Reply("Tea is a drink.", "stop", "r", "t", 3, Outcome.QUEUED, Usage(5, 6))
    with Stage(Console(force_terminal=False, width=200)) as stage:
        stage.add(Row("ada", 2, Said("Shorter, please.", "complaint", None), reply, Outcome.APPLIED, 12.4, 840.2))
        stage.note("ada: after 4 follow-ups 50%")
    out = capsys.readouterr().out
    assert "ada | 2 | Shorter, please. | applied | v3 | 12 | 840" in out and "50%" in out
