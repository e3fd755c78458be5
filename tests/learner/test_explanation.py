"""An update's effect against a computation by hand: whole sequences, no cache, no batch, plain sums."""

from dataclasses import replace

import pytest
import torch

from personalize.errors import ContextTooLong
from personalize.learner import HindsightLearner, Recipe
from personalize.learner import explanation as module
from personalize.learner.explanation import effect_of, windows
from personalize.model.folder import read_adapter
from personalize.model.rows import AdapterRows
from personalize.types import ExplainRequest, UpdateEffect
from tests.learner.conftest import EVERY_TURN, Life, experience


def ended(effect) -> UpdateEffect:
    found: list[UpdateEffect] = []
    assert [window.reports for window in windows(effect, found.append)][-1] == ()
    return found[0]


@torch.no_grad()
def by_hand(base, weights, prompt_ids, completion_ids) -> torch.Tensor:
    """Log-probabilities [reply, V] out of one whole forward of the model itself."""
    ids = torch.tensor([[*prompt_ids, *completion_ids]])
    with base.using(None if weights is None else AdapterRows.of([weights])):
        logits = base.module(input_ids=ids, use_cache=False).logits[0]
    return logits[len(prompt_ids) - 1 : -1].log_softmax(-1)


def kl(p, q) -> torch.Tensor:
    return (p.exp() * (p - q)).sum(-1)


def dense(weights, name) -> torch.Tensor:
    return weights.scaling * weights.b[name].detach() @ weights.a[name].detach()


def close(value, expected) -> bool:
    return value == pytest.approx(float(expected), abs=2e-4, rel=2e-4)


class Explained:
    """The ``number``-th turn of one life, explained; all that was known before it is at hand."""

    def __init__(self, base, folder, recipe: Recipe, number: int = 2, **changes):
        self.base, self.recipe = base, recipe
        life = Life(HindsightLearner(base, recipe), folder)
        for earlier in range(1, number):
            life.learn(experience(earlier, f"follow-up {earlier}"))
        self.turn = replace(experience(number, f"follow-up {number}"), **changes)
        self.parent_ref = life.head
        self.report = life.learn(self.turn)
        assert self.report.outcome == "applied" and life.head is not None
        self.block = tuple(turn for name in life.state.block for turn in life.turns if turn.turn_id == name)
        self.request = ExplainRequest(self.turn, self.block, life.head, self.parent_ref)
        self.parent = None if self.parent_ref is None else read_adapter(self.parent_ref.path, base)
        self.version = read_adapter(life.head.path, base)

    def effect(self, **changes) -> UpdateEffect:
        request = replace(self.request, **changes)
        return ended(effect_of(self.base, self.recipe, request, self.parent, self.version))

    def log_probs(self, weights, *told) -> torch.Tensor:
        prompt_ids = self.base.renderer.render(self.turn.messages, told)
        return by_hand(self.base, weights, prompt_ids, self.turn.completion_ids)


@pytest.mark.parametrize("number", [1, 3])
def test_every_number_is_that_of_a_hand_computation(base, tmp_path, number):
    life = Explained(base, tmp_path, EVERY_TURN, number)
    effect = life.effect()
    before, after, plain = life.log_probs(life.parent), life.log_probs(life.version), life.log_probs(None)
    told = life.log_probs(life.parent, life.turn.follow_up)
    teacher = life.log_probs(None, *(turn.follow_up for turn in life.block))
    assert len(life.block) == number and (life.parent is None) == (number == 1)
    assert len(effect.tokens) == len(life.turn.completion_ids)
    for place, token in enumerate(effect.tokens):
        sampled = life.turn.completion_ids[place]
        assert token.token_id == sampled
        assert close(token.log_prob, before[place, sampled])
        assert close(token.change, after[place, sampled] - before[place, sampled])
        assert close(token.advantage, teacher[place, sampled] - before[place, sampled])
        assert close(token.hindsight_kl, kl(told, before)[place])
        assert close(token.kl, kl(after, before)[place])
    assert close(effect.drift.to_parent, kl(after, before).sum())
    assert close(effect.drift.to_base, kl(after, plain).sum())
    assert close(effect.drift.before, kl(before, plain).sum())
    assert effect.drift.num_tokens == len(life.turn.completion_ids)
    assert (effect.teacher, effect.recipe) == ("base", life.recipe.name)


@pytest.mark.parametrize("number", [1, 2])
def test_norms_are_those_of_the_dense_matrices(base, tmp_path, number):
    life = Explained(base, tmp_path, EVERY_TURN, number)
    norms = life.effect().norms
    after = {name: dense(life.version, name) for name in life.version.a}
    before = {name: 0 * after[name] if life.parent is None else dense(life.parent, name) for name in after}

    def norm(matrices) -> torch.Tensor:
        return torch.sqrt(sum((matrix.double() ** 2).sum() for matrix in matrices))

    assert close(norms.version, norm(after.values())) and close(norms.parent, norm(before.values()))
    assert close(norms.change, norm(after[name] - before[name] for name in after))


def test_it_agrees_with_what_the_update_reported_when_it_ran(base, tmp_path):
    life = Explained(base, tmp_path, EVERY_TURN, 3)
    effect, metrics = life.effect(), life.report.metrics
    assert close(effect.drift.to_parent, metrics["reply_kl"]) and close(effect.norms.change, metrics["delta_norm"])
    assert close(max(token.hindsight_kl for token in effect.tokens), metrics["signal"])


def test_a_trained_reply_moves_towards_its_teacher(base, tmp_path):
    tokens = Explained(base, tmp_path, replace(EVERY_TURN, num_steps=8, replay=0), 1).effect().tokens
    pulled = sum(token.change * token.advantage for token in tokens)
    assert pulled > 0 and any(token.change > 0 for token in tokens) and any(token.change < 0 for token in tokens)


def test_a_token_that_is_not_trained_has_no_numbers(base, tmp_path):
    mask = (0, 0) + (1,) * 9
    life = Explained(base, tmp_path, EVERY_TURN, completion_mask=mask)
    whole, effect = life.log_probs(life.parent), life.effect()
    assert [token.change is None for token in effect.tokens] == [not trained for trained in mask]
    assert {effect.tokens[0].log_prob, effect.tokens[0].advantage, effect.tokens[0].kl} == {None}
    third = life.turn.completion_ids[2]
    assert close(effect.tokens[2].log_prob, whole[2, third]) and effect.drift.num_tokens == 9


def test_without_the_block_nothing_is_said_of_the_teacher(base, tmp_path):
    life = Explained(base, tmp_path, EVERY_TURN)
    whole, partial = life.effect(), life.effect(block=())
    assert {token.advantage for token in partial.tokens} == {None}
    assert [replace(token, advantage=None) for token in whole.tokens] == list(partial.tokens)


@pytest.mark.parametrize(("teacher", "factor"), [("live", 1.0), ("scaled", 0.5)])
def test_another_teacher_reads_with_the_parents_weights(base, tmp_path, teacher, factor):
    life = Explained(base, tmp_path, replace(EVERY_TURN, teacher=teacher, teacher_scale=0.5))
    effect = life.effect()
    weights = replace(life.parent, lora_alpha=life.parent.lora_alpha * factor)
    told = life.log_probs(weights, *(turn.follow_up for turn in life.block))
    before = life.log_probs(life.parent)
    for place, (token, sampled) in enumerate(zip(effect.tokens, life.turn.completion_ids, strict=True)):
        assert close(token.advantage, told[place, sampled] - before[place, sampled])
    assert effect.teacher == teacher


@pytest.mark.parametrize("number", [1, 2])
def test_there_is_at_most_one_pass_in_a_window(base, tmp_path, monkeypatch, number):
    life = Explained(base, tmp_path, EVERY_TURN, number)
    passes, real = [], module.reply_log_probs
    monkeypatch.setattr(module, "reply_log_probs", lambda *args, **kwargs: passes.append(1) or real(*args, **kwargs))
    effect = effect_of(base, life.recipe, life.request, life.parent, life.version)
    counts, seen = [], 0
    for _ in windows(effect, lambda _: None):
        counts.append(len(passes) - seen)
        seen = len(passes)
    assert counts == [1, 1, 1, 1, number - 1]  # the base is the parent of the first version: no fifth pass


def test_a_turn_that_does_not_fit_any_more_is_refused_whole(base, tmp_path, monkeypatch):
    life = Explained(base, tmp_path, EVERY_TURN)
    monkeypatch.setattr(base, "max_model_len", len(life.turn.prompt_ids) + len(life.turn.completion_ids))
    with pytest.raises(ContextTooLong, match=r"tokens; at most \d+ fit"):
        life.effect()


def test_the_adapters_that_were_handed_in_stay_as_they_are(base, tmp_path):
    life = Explained(base, tmp_path, EVERY_TURN)
    copies = life.parent.copy(), life.version.copy()
    life.effect()
    for kept, copy in zip((life.parent, life.version), copies, strict=True):
        assert all(torch.equal(*pair) for pair in zip(kept.parameters(), copy.parameters(), strict=True))
