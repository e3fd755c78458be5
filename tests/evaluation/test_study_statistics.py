"""How the study counts: paired intervals, collapses, areas, and the goals that are derived from them."""

import pytest

from personalize.evaluation.study.arms import ARMS, BASE, DEFAULT_ARM, ORACLE
from personalize.evaluation.study.book import Book
from personalize.evaluation.study.goals import NOISY, must_reach
from personalize.evaluation.study.profiles import PROFILES
from personalize.evaluation.study.scribe import Scribe
from personalize.evaluation.study.statistics import area, estimate, fate, turns_to, upper_bound
from personalize.evaluation.study.tally import Tally, applied_share, joined_share
from personalize.evaluation.users import Said
from personalize.types import Outcome
from personalize.world.preferences import PREFERENCES

MODEL = "m"


def line(turn=0, joint=0.0, arm=DEFAULT_ARM, control="", profile=0, seed=0, **fields):
    base = {
        "recipe": ARMS[arm].digest, "model": MODEL, "arm": arm, "control": control, "seed": seed, "turn": turn,
        "profile": PROFILES[profile].name, "joint": joint, "mean": joint, "correct": 1.0, "sums": 1.0, "refusals": 1.0,
        "capped": 0.0, "tokens": 40.0, "num_prompts": 200, "styles": {str(one): 0.0 for one in PREFERENCES},
        "outcomes": {}, "bytes": 1000, "kl": 0.1, "update_ms": 100.0,
    }  # fmt: skip
    return {**base, **fields}


def goals(lines, model="pocket"):
    return {row.figure: row for row in must_reach(Scribe(Book(lines, MODEL), model, "cpu", "make study"))}


def test_an_estimate_covers_its_mean_and_narrows_with_cells():
    few, many = estimate([0.8, 1.0] * 4), estimate([0.8, 1.0] * 100)
    assert few and many
    assert few.mean == many.mean == pytest.approx(0.9)
    assert few.low < many.low < 0.9 < many.high < few.high
    assert estimate([]) is None and estimate([0.5]).n == 1


def test_wilson_upper_bound():
    assert upper_bound(0.8, 200) == pytest.approx(0.850, abs=0.001)
    assert upper_bound(0.0, 100) == pytest.approx(0.037, abs=0.001) and upper_bound(1.0, 10) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("rates", "arrived", "collapsed"),
    [
        ([0.1, 0.95, 0.97, 0.96], True, False),
        ([0.1, 0.95, 0.5, 0.5], False, False),  # reached once only
        ([0.95, 0.95, 0.5, 0.5], True, True),
        ([0.95, 0.95, 0.5, 0.95, 0.5], True, False),  # never twice in a row
        ([0.95, 0.1, 0.1, 0.95, 0.9], True, False),  # before it had arrived
        ([0.95, 0.95, 0.84, 0.84], True, False),  # not certainly below
    ],
)
def test_a_collapse_is_two_checkpoints_certainly_below(rates, arrived, collapsed):
    found = fate([(rate, 200) for rate in rates])
    assert (found.arrived, found.collapsed) == (arrived, collapsed)


def test_area_and_turns():
    curve = [(0, 0.0), (10, 1.0), (20, 1.0)]
    assert area(curve) == pytest.approx(0.75) and area(curve[:1]) is None
    assert turns_to(0.8, curve) == 10 and turns_to(0.8, curve[:1]) is None


def test_applied_shares_tell_complaints_apart():
    outcomes = [{"complaint": {"applied": 3, "skipped_low_signal": 1}, "praise": {"applied": 1, "failed": 3}}]
    assert applied_share(outcomes, complaints=True) == (0.75, 4)
    assert applied_share(outcomes, complaints=False) == (0.25, 4)
    assert applied_share([{}], complaints=True) is None


def test_what_joined_a_block_is_counted_where_it_was_written_down():
    tally = Tally()
    for kind, metrics in (("complaint", {"informative": 1.0}), ("praise", {"informative": 0.0}), ("praise", {})):
        tally.count(Said("so", kind, None), Outcome.APPLIED, metrics)
    tally.count(Said("so", "remark", None), Outcome.SKIPPED_LOW_SIGNAL, {"informative": 1.0, "update_ms": 5.0})
    lines = [tally.to_json(), {"outcomes": {"complaint": {"applied": 9}}}]
    assert joined_share(lines, complaints=True) == (1.0, 1)
    assert joined_share(lines, complaints=False) == (1 / 3, 3)
    assert joined_share(lines[1:], complaints=True) is None
    assert tally.update_ms == []


def test_the_book_knows_one_model_and_todays_recipes():
    lines = [line(5, 0.5), {**line(5, 0.9, seed=1), "recipe": "old"}, {**line(5, 0.9, seed=2), "model": "other"}]
    assert [one["joint"] for one in Book(lines, MODEL).lines(5).values()] == [0.5]


def test_differences_are_paired_and_references_stand_for_every_seed():
    lines = [line(16, 0.9 + seed / 100, seed=seed) for seed in range(3)]
    book = Book([*lines, line(0, 0.8, arm=ORACLE), line(0, 0.1, arm=BASE)], MODEL)
    at = book.lines(16)
    found = book.difference(at, book.reference(at, ORACLE), "joint")
    assert found and found.n == 3 and found.mean == pytest.approx(0.11)
    base = book.difference(at, book.reference(at), "joint")
    assert base and base.mean == pytest.approx(0.81)


def test_goals_without_measurements_say_so():
    for model in ("pocket", NOISY):
        rows = goals([], model)
        assert rows and all(row.value is None and row.reason and row.met is None for row in rows.values())
        assert all(name.endswith("on pocket-noisy") for name in rows if model == NOISY)


def test_rates_are_means_over_two_preference_users_and_the_worst_counts_everybody():
    lines = [line(turn, 0.96, profile=p) for turn in (5, 64) for p in range(6)]
    rows = goals([*lines, line(64, 0.5, profile=6)])
    assert rows["preference rate after 5 follow-ups"].value == 0.96 and rows["preference rate after 5 follow-ups"].met
    assert "only 6 cells" in rows["preference rate after 5 follow-ups"].reason
    assert rows["worst profile and seed at 64"].value == 0.5 and rows["worst profile and seed at 64"].met is False


def test_unlearning_is_the_fall_of_those_who_had_learnt():
    name = "after-praise"
    lines = [line(0, 0.95, control=name, seed=s) for s in range(8)] + [line(0, 0.2, control=name, seed=8)]
    lines += [line(128, 0.85, control=name, seed=s) for s in range(9)]
    rows = goals(lines)
    fall = rows["un-learning: fall of the rate after praise, 128 turns, high end"]
    assert fall.value == pytest.approx(0.1) and fall.n == 8 and fall.met is False
    assert rows["users at 0.9 before after-praise"].value == pytest.approx(8 / 9, abs=1e-4)


def test_lives_are_judged_whole_and_against_the_oracle():
    turns = (0, 64, 128, 192, 500)
    healthy = [line(turn, 0.96, control="life", tokens=30.0) for turn in turns]
    fallen = [
        line(turn, r, control="life", profile=1) for turn, r in zip(turns, (0.95, 0.95, 0.3, 0.3, 0.3), strict=True)
    ]
    young = [line(turn, 0.3, control="life", profile=2) for turn in turns[:3]]
    rows = goals([*healthy, *fallen, *young, line(0, 1.0, arm=ORACLE, tokens=30.0)])
    assert (rows["lives of 500 turns that collapsed"].value, rows["lives of 500 turns that collapsed"].n) == (1, 2)
    assert rows["length over the oracle's in lives, longest checkpoint"].value == 1


def test_fresh_noise_is_held_against_base_style_by_style():
    styles = {str(one): 0.0 for one in PREFERENCES}
    moved = {**styles, "length=short": 0.2}
    lines = [line(128, control="fresh-praise", seed=s, styles=moved, kl=0.01) for s in range(8)]
    rows = goals([*lines, line(0, arm=BASE), line(64, 0.9, kl=0.1)])
    change = rows["fresh-praise: largest change of any style rate"]
    assert change.value == pytest.approx(0.2) and change.met is False and "length=short" in change.reason
    assert rows["fresh-praise: KL to base over a learning user's"].value == pytest.approx(0.1)


def test_a_shuffle_is_judged_only_when_it_is_over():
    own = "shuffle-elsewhere: own rate minus base, highest checkpoint"
    base, name = line(0, 0.0, arm=BASE), "shuffle-elsewhere"
    early = [line(turn, 0.0, control=name, donor_joint=0.1) for turn in (0, 10)]
    assert goals([base, *early])[own].value is None
    rows = goals([base, *early, line(64, 0.01, control=name, donor_joint=0.9)])
    assert rows[own].value == 0.01 and rows["shuffle-elsewhere: the donor's rate at 64"].met
