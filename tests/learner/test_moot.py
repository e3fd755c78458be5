"""What has been said again or taken back leaves the block; what is still wished stays."""

import math
import random

import pytest

from personalize.errors import ContextTooLong
from personalize.learner import HindsightLearner, Recipe
from personalize.learner import probes as probing
from personalize.learner.greedy import finished, plain_answers
from personalize.learner.probes import SPARED, Probes
from personalize.model.base import BaseModel
from personalize.model.loading import load_base
from personalize.types import Message
from personalize.world.preferences import NON_DEFAULT, VALUES, Preference
from personalize.world.wordings import held_out
from tests.learner.conftest import CharacterRenderer, Life, experience
from tests.learner.test_probes import token_by_token

OPEN_GATE = {"gate_nats": 0.0, "reach_nats": None, "lr": 1e-2, "replay": 2, "rehearse": 0, "num_steps": 1}
LONG = "x" * 600


@pytest.fixture(scope="module")
def probes(base) -> Probes:
    return Probes.of(base)


def slowly(base, probes, monkeypatch, earlier: str, newer: str) -> float:
    """The fall of the answers to ``newer`` once ``earlier`` stands before it, one plain forward per token."""
    plain = CharacterRenderer.render
    with monkeypatch.context() as told:  # the told base's own answers, by the way that the plain ones are asked
        told.setattr(CharacterRenderer, "render", lambda self, messages, _=(): plain(self, messages, [newer]))
        rows, _ = finished(plain_answers(base, probes.questions, probing.MAX_TOKENS))
    falls = []
    for question, row in zip(probes.questions, rows, strict=True):
        alone, both = (
            token_by_token(base, base.renderer.render((Message("user", question),), block), row.completion_ids)
            for block in ([newer], [earlier, newer])
        )
        falls.append(sum(one - other for one, other in zip(alone, both, strict=True)))
    return sorted(falls)[SPARED]


def test_what_remains_equals_one_plain_forward_per_token(base, probes, monkeypatch):
    monkeypatch.setattr(probing, "MAX_TOKENS", 16)
    standing = ["with emoji", "a title"]
    expected = [slowly(base, probes, monkeypatch, text, "shorter") for text in standing]
    assert finished(probes.remaining(base, standing, "shorter")) == pytest.approx(expected, abs=1e-4)
    assert all(abs(nats) > 0.1 for nats in expected)


def test_each_is_measured_alone_and_of_what_says_nothing_nothing_remains(base, probes):
    together = finished(probes.remaining(base, ["with emoji", " ", "a title"], "shorter"))
    alone = [finished(probes.remaining(base, [text], "shorter"))[0] for text in ("with emoji", " ", "a title")]
    assert together == pytest.approx(alone, abs=1e-4)
    assert together[1] == pytest.approx(0.0, abs=1e-4)


def test_what_cannot_be_read_has_the_benefit_of_the_doubt(base, probes, monkeypatch):
    assert finished(probes.remaining(base, [LONG, "a title"], "shorter")) == [
        math.inf,
        *finished(probes.remaining(base, ["a title"], "shorter")),
    ]
    plain = CharacterRenderer.render

    def render(self, messages, follow_ups=()):
        if LONG in follow_ups:
            raise ContextTooLong("no")
        return plain(self, messages, follow_ups)

    monkeypatch.setattr(CharacterRenderer, "render", render)
    assert finished(probes.remaining(base, ["a title", "emoji"], LONG)) == [math.inf, math.inf]


@pytest.mark.parametrize(("remaining", "left"), [([1.9, 2.1], [2]), ([math.nan, math.inf], [1, 2]), ([0.0, 1.0], [])])
def test_who_changes_less_than_asked_leaves_the_block(base, tmp_path, monkeypatch, remaining, left):
    life = Life(HindsightLearner(base, Recipe(**OPEN_GATE, moot_nats=None)), tmp_path)
    for number, wish in ((1, "with emoji"), (2, "a title")):
        life.learn(experience(number, follow_up=wish))
    asked = []

    def measure(self, base, earlier, newer):
        asked.append((tuple(earlier), newer))
        yield from ()
        return remaining

    monkeypatch.setattr(Probes, "remaining", measure)
    life.learner = HindsightLearner(base, Recipe(**OPEN_GATE, moot_nats=2.0))
    report = life.learn(experience(3, follow_up="no emoji"))
    assert asked == [(("with emoji", "a title"), "no emoji")]
    assert report.state.block == tuple(f"{number:032x}" for number in (*left, 3))
    assert report.metrics["num_moot"] == 2 - len(left)


@pytest.mark.parametrize("recipe", [{"moot_nats": None}, {"moot_nats": 2.0, "block_size": 1}])
def test_nothing_is_measured_in_vain(base, tmp_path, monkeypatch, recipe):
    monkeypatch.setattr(Probes, "remaining", None)
    life = Life(HindsightLearner(base, Recipe(**OPEN_GATE, **recipe)), tmp_path)
    for number in (1, 2):
        report = life.learn(experience(number))
    assert len(report.state.block) == min(2, life.learner.recipe.block_size)


def test_a_quiet_turn_measures_nothing(base, tmp_path, monkeypatch):
    life = Life(HindsightLearner(base, Recipe(**OPEN_GATE)), tmp_path)
    life.learn(experience(1))
    monkeypatch.setattr(Probes, "remaining", None)
    life.learner = HindsightLearner(base, Recipe(**{**OPEN_GATE, "gate_nats": 1e9}))
    assert life.learn(experience(2)).state.block == (f"{1:032x}",)


def test_measuring_is_cut_into_windows_of_one_pass(base, probes, monkeypatch):
    passes, original = [], BaseModel.hidden

    def hidden(*args, **kwargs):
        passes.append(1)
        return original(*args, **kwargs)

    monkeypatch.setattr(BaseModel, "hidden", hidden)
    most, before = 0, 0
    for _ in probes.remaining(base, ["emoji"], "shorter"):
        most, before = max(most, len(passes) - before), len(passes)
    assert len(passes) > 5 and most <= 2


@pytest.mark.slow  # three dozen pairs of follow-ups, each with answers of its own
def test_on_the_embedded_model_the_same_wish_is_moot_and_another_is_not():
    base = load_base("pocket", device="cpu")
    probes, rng = Probes.of(base), random.Random(1)
    limit = Recipe().moot_nats
    assert limit is not None

    def moot(pairs: list[tuple[Preference, Preference]]) -> float:
        found = []
        for earlier, newer in pairs:
            texts = rng.choice(held_out(earlier)), rng.choice(held_out(newer))
            found += finished(probes.remaining(base, [texts[0]], texts[1]))
        return sum(nats < limit for nats in found) / len(found)

    others = [(one, rng.choice([two for two in NON_DEFAULT if two.dimension != one.dimension])) for one in NON_DEFAULT]
    back = [(one, Preference(one.dimension, VALUES[one.dimension][0])) for one in NON_DEFAULT]
    assert moot([(one, one) for one in NON_DEFAULT]) >= 0.75
    assert moot(others) <= 0.2
    assert moot(back) >= 0.25
