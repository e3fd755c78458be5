"""Within one update nothing is read twice by the same weights, and what is not read again is the same number."""

from dataclasses import replace

import pytest

from personalize.learner import HindsightLearner, Recipe
from personalize.learner.batch import collate
from personalize.learner.lesson import told_row
from personalize.learner.prefixes import num_shared
from personalize.model.base import BaseModel
from tests.learner.conftest import Life, experience

ONE = Recipe(gate_nats=None, replay=0, rehearse=0, num_steps=1)


@pytest.fixture
def passes(monkeypatch):
    """The tokens of every pass, and after how many passes the guards began."""
    seen: list[int] = []
    original = BaseModel.hidden

    def hidden(base, input_ids, *args, **kwargs):
        seen.append(input_ids.numel())
        return original(base, input_ids, *args, **kwargs)

    monkeypatch.setattr(BaseModel, "hidden", hidden)
    return seen


def guards_passes(learner, passes, monkeypatch) -> list[int]:
    """Return a list that will hold the tokens of the guards' passes."""
    found: list[int] = []
    check = learner._check

    def checked(*args):
        before = len(passes)
        check(*args)
        found.extend(passes[before:])

    monkeypatch.setattr(learner, "_check", checked)
    return found


def test_a_prompt_is_read_once_by_the_parents_weights(base, tmp_path, passes):
    learner, turn = HindsightLearner(base, ONE), experience(1)
    assert learner.canaries.rows
    passes.clear()
    assert Life(learner, tmp_path).learn(turn).outcome == "applied"
    prompt, told = turn.prompt_ids, told_row(base, turn, [turn])
    reply, shared = len(turn.completion_ids), num_shared(prompt[:-1], told.prompt_ids)
    assert shared > len(prompt) // 2
    gate = [len(prompt) - 1, reply, len(told.prompt_ids) - shared + reply - 1]
    teacher = [collate([told]).prefix_ids.numel(), reply]
    assert passes[:6] == [*gate, *teacher, reply], "the student's first step reads its reply alone"


def test_the_guards_take_the_last_passs_word_for_the_weights_it_ran_on(base, tmp_path, passes, monkeypatch):
    """Two learners take the same one step; one of them then looks again, and finds that it is near enough."""
    two = Life(HindsightLearner(base, replace(ONE, num_steps=2, enough_nats=0.0)), tmp_path / "two").learn(
        experience(1)
    )
    per_reply = (two.metrics["loss_first"] + two.metrics["loss_last"]) / 2 * two.metrics["num_trained_tokens"]
    looks = replace(ONE, num_steps=2, enough_nats=per_reply)  # the first step goes past it
    found, spent = [], []
    for recipe in (ONE, looks):
        learner = HindsightLearner(base, recipe)
        assert learner.canaries.rows
        spent.append(guards_passes(learner, passes, monkeypatch))
        found.append(Life(learner, tmp_path / str(recipe.num_steps)).learn(experience(1)))
    read_again, taken = (report.metrics for report in found)
    assert read_again["num_steps"] == taken["num_steps"] == 1
    assert taken["reply_kl"] == pytest.approx(read_again["reply_kl"], abs=1e-5) and taken["reply_kl"] > 0
    assert spent[0][2:] == spent[1], "what is left are the canaries"
