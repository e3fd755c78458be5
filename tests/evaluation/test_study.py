"""The study's bookkeeping: one line per measurement, and nothing is measured twice."""

import json

from personalize.evaluation.study import ARMS, PROFILES, Cell, Results, Tally, report
from personalize.evaluation.users import Said
from personalize.learner import Recipe
from personalize.types import Outcome
from personalize.world.preferences import NON_DEFAULT


def test_results_are_appended_and_found_again(tmp_path):
    path = tmp_path / "study" / "results.jsonl"
    results = Results(path)
    assert not results.has(arm="a", turn=0)
    results.add({"arm": "a", "profile": "p", "seed": 0, "turn": 0, "joint": 0.5})
    again = Results(path)
    assert again.has(arm="a", profile="p", seed=0, turn=0) and not again.has(arm="a", profile="p", seed=1, turn=0)
    assert [json.loads(line)["joint"] for line in path.read_text().splitlines()] == [0.5]


def test_every_arm_is_a_recipe():
    for name, changes in ARMS.items():
        assert Recipe(**changes).lr > 0, name


def test_profiles_want_what_is_not_the_default_once_per_dimension():
    assert len({profile.name for profile in PROFILES}) == len(PROFILES) == 8
    for profile in PROFILES:
        assert set(profile.preferences) <= set(NON_DEFAULT)
        dimensions = [one.dimension for one in profile.preferences]
        assert len(set(dimensions)) == len(dimensions)


def test_cells_are_users_of_their_own():
    users = {Cell("a", profile, seed).user for profile in PROFILES for seed in range(3)}
    assert len(users) == 24


def test_tally_counts_complaints_apart():
    tally = Tally()
    tally.count(Said("x", "complaint", None), Outcome.APPLIED)
    tally.count(Said("x", "complaint", None), Outcome.SKIPPED_LOW_SIGNAL)
    tally.count(Said("x", "praise", None), Outcome.APPLIED)
    assert (tally.complaints, tally.complaints_applied, tally.others, tally.others_applied) == (2, 1, 1, 1)


def test_report_prints_means_and_the_worst(tmp_path, capsys):
    results = Results(tmp_path / "r.jsonl")
    for seed, joint in enumerate((0.5, 1.0)):
        results.add({"arm": "a", "turn": 5, "seed": seed, "joint": joint, "mean": joint, "correct": 1.0, "capped": 0.0})
    report(results, "a")
    assert "5  0.750  0.750  0.500  1.000  0.000  2" in capsys.readouterr().out
