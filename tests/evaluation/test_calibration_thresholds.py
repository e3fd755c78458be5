"""What lets wishes into the block and keeps idle follow-ups out, from made-up numbers: no model."""

import math
import random

import pytest

from personalize.evaluation.calibration.findings import Findings, FollowUpSignals, Spread
from personalize.evaluation.calibration.thresholds import MIN_POWER, split, thresholds

# --- one number ------------------------------------------------------------------------------------------------------


def test_the_threshold_tells_wishes_from_idle_follow_ups():
    best = split([0.1, 0.2, 6.0], [1.0, 4.0, 5.0])
    assert best is not None
    assert (best.nats, best.caught, best.let_in) == (0.6, 1.0, pytest.approx(1 / 3))
    assert best.power == pytest.approx(2 / 3)


def test_of_equal_thresholds_the_one_in_the_widest_gap():
    best = split([0.0, 1.0], [9.0, 10.0])
    assert best is not None and best.nats == 5.0 and best.power == 1.0


def test_without_signals_there_is_no_threshold():
    assert split([], [1.0]) is None and split([1.0], []) is None and split([0.0], [0.0]) is None


def test_signals_that_are_the_other_way_round_have_no_power():
    best = split([5.0, 6.0], [0.1, 0.2])
    assert best is not None and best.power <= 0


def test_a_threshold_is_above_zero_and_finite():
    best = split([-2.0, -0.5], [-0.1, 3.0, math.inf])
    assert best is not None and (best.nats, best.caught, best.let_in) == (1.5, pytest.approx(2 / 3), 0.0)
    assert split([math.inf], [math.inf]) is None and split([-1.0], [-0.5]) is None


# --- both ------------------------------------------------------------------------------------------------------------


def turns(wishes: list[tuple[float, float]], idle: list[tuple[float, float]]) -> Findings:
    """Return findings of these pairs of signal and reach."""
    return Findings(
        signals=tuple(
            FollowUpSignals(kind, is_wish, tuple(1.0 for _ in pairs), *zip(*pairs, strict=True))
            for kind, is_wish, pairs in (("bullet list", True, wishes), ("praise", False, idle))
        )
    )


def test_where_the_reach_tells_all_apart_the_signal_only_asks_for_half_of_the_weakest_wish():
    found = thresholds(turns(wishes=[(2.0, 5.0), (9.0, 6.0)], idle=[(20.0, 0.5), (0.1, 1.0)]))
    assert found is not None
    assert (found.gate_nats, found.reach_nats, found.caught, found.let_in) == (1.0, 3.0, 1.0, 0.0)
    assert found.power == 1.0 and found.why_no_reach == ""


def test_what_the_reach_lets_pass_is_left_to_the_signal():
    wishes, idle = [(4.0, 5.0), (5.0, 6.0), (6.0, 7.0)], [(9.0, 0.5), (8.0, 1.0), (1.0, 9.0)]
    found = thresholds(turns(wishes, idle))
    assert found is not None
    assert (found.gate_nats, found.reach_nats, found.caught, found.let_in) == (2.5, 3.0, 1.0, 0.0)


def test_the_shares_are_those_of_the_turns_that_pass_both():
    wishes, idle = [(4.0, 5.0), (5.0, 6.0), (0.2, 7.0), (6.0, 0.1)], [(9.0, 0.5), (8.0, 1.0), (1.0, 9.0), (0.1, 0.2)]
    found = thresholds(turns(wishes, idle))
    assert found is not None and found.reach_nats is not None
    gate_nats, reach_nats = found.gate_nats, found.reach_nats

    def share(pairs: list[tuple[float, float]]) -> float:
        return sum(signal >= gate_nats and reach >= reach_nats for signal, reach in pairs) / len(pairs)

    assert (found.caught, found.let_in) == (share(wishes), share(idle)) == (0.5, 0.0)


@pytest.mark.parametrize(
    ("wishes", "idle", "says"),
    [
        ([(4.0, 0.5), (5.0, 0.6)], [(0.1, 6.0), (0.2, 7.0)], "by 0.00"),
        ([(4.0, 3.0), (5.0, 0.6)], [(0.1, 0.1), (0.2, 2.9), (0.3, 6.0)], "hardly further"),
        ([(4.0, 0.0), (5.0, 0.0)], [(0.1, 0.0), (0.2, 0.0)], "hardly further"),
        ([(4.0, 3.0), (5.0, 4.0), (6.0, 0.1)], [(0.1, 0.1), (0.2, 0.2)], "the signal alone"),
        ([(4.0, math.inf)], [(0.1, math.inf)], "no room"),
    ],
)
def test_a_reach_that_is_of_no_use_is_not_asked_for_and_says_why(wishes, idle, says):
    found = thresholds(turns(wishes, idle))
    assert found is not None and found.reach_nats is None and says in found.why_no_reach
    alone = split([signal for signal, _ in idle], [signal for signal, _ in wishes])
    assert alone is not None and (found.gate_nats, found.caught, found.let_in) == (alone.nats, 1.0, 0.0)


def test_a_reach_that_was_not_measured_is_not_asked_for():
    wishes, idle = FollowUpSignals("bullet list", True, (1.0,), (4.0,)), FollowUpSignals("ok", False, (0.1,), (1.0,))
    found = thresholds(Findings(signals=(wishes, idle)))
    assert found is not None and (found.gate_nats, found.reach_nats) == (2.5, None)
    assert "no room" in found.why_no_reach


def test_without_signals_there_is_nothing_to_decide_on():
    assert thresholds(Findings()) is None
    assert thresholds(Findings(signals=(FollowUpSignals("bullet list", True, (1.0,), (4.0,), (5.0,)),))) is None


def test_a_follow_up_without_room_for_a_question_passes_as_it_does_when_learning():
    found = thresholds(turns(wishes=[(4.0, math.inf), (5.0, 6.0)], idle=[(9.0, 0.5), (8.0, 1.0)]))
    assert found is not None and (found.reach_nats, found.caught, found.let_in) == (3.5, 1.0, 0.0)


def test_numbers_drawn_at_random_are_hardly_ever_told_apart_well_enough():
    generator = random.Random(0)
    powers = []
    for _ in range(300):
        best = split([generator.random() for _ in range(12)], [generator.random() for _ in range(18)])
        powers.append(0.0 if best is None else best.power)
    assert sum(power >= MIN_POWER for power in powers) <= 0.05 * len(powers)


def test_quartiles():
    assert Spread.of([5.0, 1.0, 2.0, 3.0, 4.0]) == Spread(2.0, 3.0, 4.0)
    assert Spread.of([1.0]) == Spread(1.0, 1.0, 1.0) and Spread.of([]) is None
