"""``personalize calibrate``: tables, exit codes, the file with the recipe; what is measured is tested elsewhere."""

import json
from dataclasses import replace

import pytest

from personalize.errors import ModelError
from personalize.evaluation.calibration import command
from personalize.evaluation.calibration.calibration import Calibration
from personalize.evaluation.calibration.findings import Findings, FollowUpSignals, Together, Trial, WishRates
from personalize.evaluation.calibration.wishes import UNRELATED
from personalize.learner import Recipe

NO_HINDSIGHT = Findings(
    block_removed=1.0, room=400, agreement=1.0, new_adapter_change=0.0,
    wishes=(WishRates("bullet list", plain=0.1, told=0.1, asked=0.2, win=0.5, num_replies=4),),
)  # fmt: skip
USABLE = Findings(
    block_removed=1.0, room=400, agreement=1.0, new_adapter_change=0.0,
    wishes=(
        WishRates("bullet list", plain=0.0, told=1.0, asked=1.0, win=1.0, num_replies=4),
        WishRates("closing question", plain=0.0, told=0.1, asked=0.1, win=0.5, num_replies=4),
    ),
    signals=(
        FollowUpSignals("bullet list", True, (0.5,), (5.0,), (9.0,)),
        *(FollowUpSignals(kind, False, (0.1,), (1.0,), (2.0,)) for kind in ("ok", "praise", *UNRELATED)),
    ),
    blamed_after_wish=(-1.0,), blamed_after_praise=(0.1,), together=(Together(2, 1.0, 1.0, 4),), layer_gain=1.0,
    trials=(Trial(2e-4, 1, 1, ("applied",), loss_first=1.0, loss_last=0.3, grad_norm=2.0, reply_kl=0.4),),
)  # fmt: skip


@pytest.fixture()
def finds(monkeypatch):
    """Lets the command find this; returns what it was asked."""
    asked = []

    def set_up(findings: Findings):
        def calibrate(settings, extent, *, num_threads=None, note=print):
            asked.append((settings, extent, num_threads))
            return Calibration.of(settings.model, "ab" * 32, findings)

        monkeypatch.setattr(command, "calibrate", calibrate)
        return asked

    return set_up


def test_a_usable_model_is_exit_code_0_and_leaves_a_recipe(shell, finds, tmp_path):
    finds(USABLE)
    out = shell.raw("calibrate", "somebody/model", "--out", str(tmp_path / "recipe.json"))
    assert "This model can be personalized" in out and "Not to be expected of it: closing question." in out
    for heading in ("G1", "G6", "told in the block", "the gate's signal", "the reach beyond", "updates on trial"):
        assert heading in out
    assert "They let in 100% of the wishes and 0% of the idle follow-ups." in out
    recipe = json.loads((tmp_path / "recipe.json").read_text())
    settings = {"gate_nats": 2.5, "reach_nats": 5.5, "block_size": 2, "lr": 2e-4}
    assert recipe == {"name": "calibrated", **settings}
    assert Recipe(**recipe).block_size == 2


def test_a_models_name_is_never_markup(shell, finds):
    finds(USABLE)
    assert "[/INST], abab" in shell.raw("calibrate", "[/INST]")


def test_a_recipe_without_reach_says_why(shell, finds, tmp_path):
    finds(replace(USABLE, signals=tuple(replace(one, reaches=()) for one in USABLE.signals)))
    out = " ".join(shell.raw("calibrate", "somebody/model", "--out", str(tmp_path / "recipe.json")).split())
    assert "No reach_nats: the context has no room for a question, a follow-up and an answer" in out
    assert "the reach beyond" not in out
    recipe = json.loads((tmp_path / "recipe.json").read_text())
    assert (recipe["gate_nats"], recipe["reach_nats"]) == (3.0, None)
    assert Recipe(**recipe).reach_nats is None


def test_an_unusable_model_is_exit_code_1_with_the_reason_and_leaves_no_file(shell, finds, tmp_path):
    finds(NO_HINDSIGHT)
    out = shell.raw("calibrate", "somebody/model", "--out", str(tmp_path / "recipe.json"), code=1)
    assert "This model cannot be personalized this way." in out and "nothing to distil" in out
    assert "not measured" in out and not (tmp_path / "recipe.json").exists()


@pytest.mark.parametrize(("findings", "code"), [(USABLE, 0), (NO_HINDSIGHT, 1)])
def test_json_is_the_whole_result(shell, finds, findings, code):
    finds(findings)
    found = json.loads(shell.raw("calibrate", "somebody/model", "--json", code=code))
    assert found["model"] == "somebody/model" and found["usable"] is (code == 0)
    assert bool(found["reasons"]) is bool(code) and (found["recipe"] is None) is bool(code)


def test_options_are_handed_on(shell, finds):
    asked = finds(USABLE)
    shell.raw(
        "calibrate", "somebody/model", "--samples", "3", "--max-tokens", "40", "--seed", "7", "--threads", "2",
        "--device", "cpu",
    )  # fmt: skip
    ((settings, extent, threads),) = asked
    assert (settings.model, settings.device, threads) == ("somebody/model", "cpu", 2)
    assert (extent.samples, extent.max_tokens, extent.seed) == (3, 40, 7)


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_measured(shell, finds, tmp_path):
    asked = finds(USABLE)
    out = shell.raw("calibrate", "m", "--out", str(tmp_path / "missing" / "recipe.json"), code=1)
    assert "error: invalid_parameter: out = " in out and not asked


def test_a_model_that_cannot_be_loaded_is_one_line(shell, monkeypatch):
    def calibrate(*_, **__):
        raise ModelError("cannot load the model 'm'")

    monkeypatch.setattr(command, "calibrate", calibrate)
    assert "error: model_error: cannot load the model 'm'" in shell.raw("calibrate", "m", code=1)
    assert "Missing argument" in shell.raw("calibrate", code=2)
