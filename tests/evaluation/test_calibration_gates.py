"""What calibration decides, from made-up numbers: no model."""

import json
from dataclasses import asdict, replace

import pytest

from personalize.evaluation.calibration.calibration import Calibration
from personalize.evaluation.calibration.findings import Findings, FollowUpSignals, Together, Trial, WishRates
from personalize.evaluation.calibration.gates import follows, gates, reasons, usable
from personalize.evaluation.calibration.proposal import best_trial, block_size, first_rate, learning_rate
from personalize.learner import Recipe


def rates(name: str = "greeting first", told: float = 0.9, asked: float = 0.9, win: float = 0.95) -> WishRates:
    return WishRates(name, plain=0.0, told=told, asked=asked, win=win, num_replies=12)


def trial(lr: float, last: float, applied: int = 4, first: float = 1.0) -> Trial:
    outcomes = ("applied",) if applied == 4 else ("rejected_kl",)
    return Trial(lr, 4, applied, outcomes, loss_first=first, loss_last=last, grad_norm=1.0, reply_kl=0.5)


GOOD = Findings(
    block_removed=1.0,
    room=400,
    agreement=1.0,
    new_adapter_change=0.0,
    wishes=(rates("greeting first"), rates("bullet list"), rates("capital letters", told=0.1, win=0.5)),
    signals=(
        FollowUpSignals("greeting first", True, (0.5, 0.7), (4.0, 6.0), (3.0, 8.0)),
        FollowUpSignals("bullet list", True, (0.6,), (5.0,), (7.0,)),
        FollowUpSignals("ok", False, (0.05,), (0.2,), (0.1,)),
        FollowUpSignals("praise", False, (0.1,), (0.4,), (0.2,)),
        FollowUpSignals("remark", False, (0.1,), (0.3,), (1.0,)),
        FollowUpSignals("other question", False, (0.2,), (1.0,), (0.3,)),
    ),
    blamed_after_wish=(-1.0, -2.0, -0.5, -0.1, 0.2),
    blamed_after_praise=(0.1, -0.1),
    together=(Together(2, 0.9, 0.95, 12), Together(3, 0.8, 0.95, 12), Together(4, 0.3, 0.95, 12)),
    layer_gain=1.0,
    trials=(trial(1e-4, 0.9), trial(3e-4, 0.4)),
)


def failed(findings: Findings) -> list[str]:
    return [reason.partition(":")[0] for reason in reasons(gates(findings))]


def test_a_good_model_passes_and_its_settings_are_a_recipe():
    found = Calibration.of("somebody/model", "0" * 64, GOOD)
    assert found.is_usable and found.recipe is not None and found.reasons == ()
    settings = {"gate_nats": 2.0, "reach_nats": 2.0, "block_size": 3, "lr": 2.4e-4}
    assert found.recipe == {"name": "calibrated", **settings}
    assert asdict(Recipe(**found.recipe)) == asdict(Recipe()) | found.recipe
    assert {gate.verdict for gate in found.gates} == {"passed", "reported"}


@pytest.mark.parametrize(
    ("changes", "gate", "says"),
    [
        ({"block_removed": 0.9}, "G1", "chat template"),
        ({"room": 31}, "G1", "context is too short"),
        ({"agreement": 0.5}, "G1", "serving and learning"),
        ({"new_adapter_change": 1e-6}, "G2", "learned nothing"),
        ({"wishes": (rates(told=0.1, win=0.5, asked=0.1),)}, "G4", "nothing to distil"),
        ({"wishes": (rates(told=0.1, win=0.5, asked=0.9),)}, "G4", "the hindsight block that it does not understand"),
        ({"blamed_after_wish": (-1.0, 1.0)}, "G5", "wrong tokens"),
        ({"signals": (*GOOD.signals[:2], FollowUpSignals("ok", False, (0.5,), (5.5,), (7.5,)))}, "G6", "no threshold"),
        ({"trials": (trial(1e-4, 1.2),)}, "T", "no learning rate"),
        ({"trials": (trial(1e-4, 0.1, applied=3),)}, "T", "rejected_kl"),
    ],
)
def test_every_required_gate_stops_a_model_and_says_why(changes, gate, says):
    bad = replace(GOOD, **changes)
    assert failed(bad) == [gate]
    found = Calibration.of("somebody/model", "0" * 64, bad)
    assert not found.is_usable and found.recipe is None
    assert says in found.reasons[0]


def test_what_is_only_usual_does_not_stop_a_model():
    weak = replace(GOOD, wishes=tuple(replace(one, asked=0.2) for one in GOOD.wishes))
    assert usable(gates(weak))
    assert [gate.verdict for gate in gates(weak) if gate.what.startswith("the same wishes")] == ["failed"]


def test_what_was_not_measured_is_neither_passed_nor_made_up():
    verdicts = gates(Findings())
    assert {gate.verdict for gate in verdicts} == {"not measured"} and not usable(verdicts)
    assert not any(gate.stops for gate in verdicts)
    assert all("no reply gave occasion" in reason for reason in reasons(verdicts)) and reasons(verdicts)


def test_gates_that_follow_a_failure_are_not_reasons():
    assert failed(Findings(room=0)) == ["G1"]


def test_a_wish_must_win_and_hold():
    assert follows(rates(told=0.5, win=0.65))
    assert not follows(rates(told=0.49, win=0.7)) and not follows(rates(told=0.9, win=0.6))


def test_a_model_whose_signal_tells_nothing_apart_passes_by_its_reach():
    mixed = tuple(replace(one, signals=tuple(5.0 for _ in one.signals)) for one in GOOD.signals)
    found = Calibration.of("somebody/model", "0" * 64, replace(GOOD, signals=mixed))
    values = {gate.what: gate.value for gate in found.gates if gate.name == "G6"}
    assert values["wishes above the signal's best threshold, less idle follow-ups"] == 0
    assert values["wishes above the reach's best threshold, less idle follow-ups"] == 1
    assert values["wishes that they let in, less idle follow-ups"] == 1
    assert found.recipe is not None and (found.recipe["gate_nats"], found.recipe["reach_nats"]) == (2.5, 2.0)


def test_a_model_whose_reach_tells_nothing_apart_passes_by_its_signal():
    same = tuple(replace(one, reaches=tuple(5.0 for _ in one.reaches)) for one in GOOD.signals)
    found = Calibration.of("somebody/model", "0" * 64, replace(GOOD, signals=same))
    assert found.is_usable and found.recipe is not None and found.thresholds is not None
    assert (found.recipe["gate_nats"], found.recipe["reach_nats"]) == (2.5, None)
    assert "hardly further" in found.thresholds.why_no_reach
    assert Recipe(**found.recipe).reach_nats is None


def test_a_block_ends_before_wishes_get_lost():
    assert block_size(()) == 1
    assert block_size((Together(3, 0.9, 0.9, 4), Together(2, 0.3, 0.9, 4))) == 1
    assert block_size((Together(2, 0.73, 0.9, 4), Together(3, 0.71, 0.9, 4))) == 2


def test_the_first_rate_follows_alpha_and_the_layers():
    assert first_rate(1.0, 16) == pytest.approx(9.4e-5)
    assert first_rate(2.0, 32) == first_rate(1.0, 16)
    assert first_rate(1e9, 16) == first_rate(10.0, 16) and first_rate(0.0, 16) == first_rate(0.1, 16)


def test_the_first_rate_that_is_enough_is_taken_else_the_best_sound_one():
    slow, fast, faster = trial(1e-4, 0.8), trial(3e-4, 0.5), trial(9e-4, 0.1)
    assert best_trial([slow, fast, faster]) is fast
    assert best_trial([slow, trial(3e-4, 0.6)]) == trial(3e-4, 0.6)
    assert best_trial([slow, trial(3e-4, 0.1, applied=0)]) is slow
    assert best_trial([trial(1e-4, float("nan"))]) is None and best_trial([]) is None
    assert best_trial([trial(1e-4, 0.0, first=0.0)]) is None, "where there was no loss none was taken away"


def test_the_rate_lies_between_the_trials_on_either_side_of_enough():
    assert learning_rate([trial(1e-4, 0.75), trial(1e-2, 0.25)]) == pytest.approx(1e-3)
    assert learning_rate([trial(1e-4, 0.75), trial(1e-2, 0.5)]) == pytest.approx(1e-2)
    assert learning_rate([trial(1e-4, 0.3)]) == 1e-4, "the first was enough already"
    assert learning_rate([trial(1e-4, 0.9), trial(3e-4, 0.8)]) == 3e-4, "none was"
    assert learning_rate([trial(1e-4, 1.5)]) is None


def test_json_holds_every_number_and_no_nan():
    findings = replace(GOOD, trials=(*GOOD.trials, trial(9e-4, float("nan"), applied=0)))
    found = Calibration.of("somebody/model", "ab" * 32, findings).to_json()
    again = json.loads(json.dumps(found, allow_nan=False))
    assert again["usable"] is True and again["recipe"]["block_size"] == 3
    assert again["findings"]["trials"][-1]["loss_last"] is None
    greeting = again["findings"]["signals"]["greeting first"]
    assert greeting == {
        "size": pytest.approx(0.6),
        "signal": {"low": 4.0, "middle": 4.0, "high": 6.0},
        "reach": {"low": 3.0, "middle": 3.0, "high": 8.0},
    }
    assert again["thresholds"] == {
        "gate_nats": 2.0, "reach_nats": 2.0, "caught": 1.0, "let_in": 0.0, "why_no_reach": "",
    }  # fmt: skip
    assert len(again["gates"]) == len(gates(findings)) and again["reasons"] == []
