"""A wish that was said again, taken back, or stands in the way of a newer one leaves the block."""

import math
import random
from statistics import fmean

import pytest

from personalize.errors import ContextTooLong
from personalize.learner import HindsightLearner, Recipe
from personalize.learner import probes as probing
from personalize.learner.greedy import finished, plain_answers
from personalize.learner.probes import Probes
from personalize.model.base import BaseModel
from personalize.model.loading import load_base
from personalize.types import Message
from personalize.world.preferences import NON_DEFAULT, VALUES, Preference
from personalize.world.wordings import held_out
from tests.learner.conftest import CharacterRenderer, Life, experience
from tests.learner.test_probes import token_by_token

OPEN_GATE = {"gate_nats": 0.0, "reach_nats": 0.0, "lr": 1e-2, "replay": 2, "rehearse": 0, "num_steps": 1}
ALL_STAND = {**OPEN_GATE, "moot_share": None}
LONG = "x" * 600


@pytest.fixture(scope="module")
def probes(base) -> Probes:
    return Probes.of(base)


def answers(base, questions, monkeypatch, told):
    """The told base's own answers, by the way that the plain ones are asked."""
    plain = CharacterRenderer.render
    with monkeypatch.context() as patch:
        patch.setattr(CharacterRenderer, "render", lambda self, messages, _=(): plain(self, messages, told))
        rows, _ = finished(plain_answers(base, questions, probing.MAX_TOKENS))
    return rows


def slowly(base, questions, rows, before, after) -> float:
    """The mean fall of these answers between two blocks, one plain forward per token."""
    falls = []
    for question, row in zip(questions, rows, strict=True):
        prompts = (base.renderer.render((Message("user", question),), block) for block in (before, after))
        scores = [sum(token_by_token(base, prompt, row.completion_ids)) for prompt in prompts]
        falls.append(scores[0] - scores[1])
    return fmean(falls)


def test_shares_equal_one_plain_forward_per_token(base, monkeypatch):
    monkeypatch.setattr(probing, "MAX_TOKENS", 12)
    probes, newer, expected = Probes.of(base), "shorter", []
    asked = probes.questions
    of_newer = answers(base, asked, monkeypatch, [newer])
    newer_alone = slowly(base, asked, probes.rows, [], [newer])
    texts = ("with emoji", "a title")
    for text in texts:
        both, given = [text, newer], answers(base, asked, monkeypatch, [text])
        earlier = slowly(base, asked, of_newer, [newer], both) / slowly(base, asked, probes.rows, [], [text])
        heard = slowly(base, asked, given, [text], both) / newer_alone
        expected.append((earlier, heard, slowly(base, asked, given, [], [newer]) > 0))
    found = finished(probes.shares(base, texts, newer, 0.0))
    assert found == pytest.approx(
        [min(1.0, one, other if against else 1.0) for one, other, against in expected], abs=1e-3
    )
    assert all(abs(one - other) > 0.05 for one, other, _ in expected)


@pytest.mark.parametrize(("against", "share"), [(0.1, 0.2), (0.0, 0.8), (-0.1, 0.8), (math.inf, 0.2)])
def test_a_wish_that_asks_for_the_same_and_more_is_not_in_the_way(base, probes, monkeypatch, against, share):
    nats, beside = len(probes.base_N) / len(probes.rows), iter((0.8, 0.2))

    def change(self, base, told, answers, *, untold=False):
        assert told == (["shorter"] if untold else ["shorter, with emoji", "shorter"])
        return against if untold else next(beside) * nats

    monkeypatch.setattr(Probes, "_change", change)
    alone = {"shorter": probes.base_N - 1, "shorter, with emoji": probes.base_N - 1}.__getitem__
    (found,) = finished(probes.shares(base, ["shorter, with emoji"], "shorter", 1.0, alone))
    assert found == pytest.approx(share)


def test_each_is_measured_alone(base, probes):
    texts = ["with emoji", "no lists", "a title"]
    alone = [finished(probes.shares(base, [text], "shorter", 0.0))[0] for text in texts]
    assert finished(probes.shares(base, texts, "shorter", 0.0)) == pytest.approx(alone, abs=1e-3)


def test_who_does_nothing_alone_has_nothing_to_lose(base, probes):
    assert finished(probes.shares(base, ["with emoji", " "], "shorter", 1e6)) == [1.0, 1.0]
    assert finished(probes.shares(base, [""], "", 0.0)) == [1.0], "nothing is no share of nothing"
    assert min(finished(probes.shares(base, ["with emoji", "no lists", "a title"], "shorter", 0.0))) < 1.0


def test_what_cannot_be_read_stays(base, probes, monkeypatch):
    read = finished(probes.shares(base, ["a title"], "shorter", 0.0))
    assert finished(probes.shares(base, [LONG, "a title"], "shorter", 0.0)) == [1.0, *read]
    plain = CharacterRenderer.render

    def render(self, messages, follow_ups=()):
        if LONG in follow_ups:
            raise ContextTooLong("no")
        return plain(self, messages, follow_ups)

    monkeypatch.setattr(CharacterRenderer, "render", render)
    assert finished(probes.shares(base, ["a title", "emoji"], LONG, 0.0)) == [1.0, 1.0]
    assert finished(probes.shares(base, [LONG], LONG, 0.0)) == [1.0]


@pytest.mark.parametrize(("shares", "left"), [([0.2, 0.4], [2]), ([math.nan, 1.0], [1, 2]), ([0.0, -0.1], [])])
def test_who_keeps_a_smaller_share_than_asked_leaves_the_block(base, tmp_path, monkeypatch, shares, left):
    life = Life(HindsightLearner(base, Recipe(**ALL_STAND)), tmp_path)
    for number, wish in ((1, "with emoji"), (2, "a title")):
        life.learn(experience(number, follow_up=wish))
    asked = []

    def measure(self, base, earlier, newer, enough_nats, alone):
        asked.append((tuple(earlier), newer, enough_nats))
        yield from ()
        return shares

    monkeypatch.setattr(Probes, "shares", measure)
    life.learner = HindsightLearner(base, Recipe(**OPEN_GATE, moot_share=0.3))
    report = life.learn(experience(3, follow_up="no emoji"))
    assert asked == [(("with emoji", "a title"), "no emoji", 0.0)]
    assert report.state.block == tuple(f"{number:032x}" for number in (*left, 3))
    assert report.metrics["num_moot"] == 2 - len(left)


@pytest.mark.parametrize(("reach", "left"), [(1.0, [1, 2]), (0.9, [2]), (math.nan, [2])])
def test_what_a_way_back_halves_leaves_the_block(base, tmp_path, monkeypatch, reach, left):
    life = Life(HindsightLearner(base, Recipe(**ALL_STAND)), tmp_path)
    for number, wish in ((1, "with emoji"), (2, "a title")):
        life.learn(experience(number, follow_up=wish))

    def measured(result):
        def measure(self, *_):
            yield from ()
            return result

        return measure

    monkeypatch.setattr(Probes, "reach", lambda self, base, follow_ups, alone: [reach])
    monkeypatch.setattr(Probes, "reversal", measured(1.0))
    monkeypatch.setattr(Probes, "shares", measured([0.4, 0.6]))
    recipe = Recipe(**{**OPEN_GATE, "reach_nats": 1.0}, moot_share=0.3, moot_share_back=0.5)
    life.learner = HindsightLearner(base, recipe)
    report = life.learn(experience(3, follow_up="no emoji"))
    assert report.state.block == tuple(f"{number:032x}" for number in (*left, 3))


def test_without_a_gate_every_follow_up_is_judged_as_a_wish(base, tmp_path, monkeypatch):
    life = Life(HindsightLearner(base, Recipe(**ALL_STAND)), tmp_path)
    life.learn(experience(1, follow_up="with emoji"))

    def measure(self, *_):
        yield from ()
        return [0.4]

    monkeypatch.setattr(Probes, "shares", measure)
    life.learner = HindsightLearner(base, Recipe(**OPEN_GATE, moot_share=0.3).always())
    assert len(life.learn(experience(2, follow_up="no emoji")).state.block) == 2


@pytest.mark.parametrize("changes", [{"moot_share": None}, {"block_size": 1}, {"reach_nats": None}])
def test_nothing_is_measured_in_vain(base, tmp_path, monkeypatch, changes):
    monkeypatch.setattr(Probes, "shares", None)
    life = Life(HindsightLearner(base, Recipe(**{**OPEN_GATE, **changes})), tmp_path)
    for number in (1, 2):
        report = life.learn(experience(number))
    assert len(report.state.block) == min(2, life.learner.recipe.block_size)


def test_a_quiet_turn_measures_nothing(base, tmp_path, monkeypatch):
    life = Life(HindsightLearner(base, Recipe(**OPEN_GATE)), tmp_path)
    life.learn(experience(1))
    monkeypatch.setattr(Probes, "shares", None)
    life.learner = HindsightLearner(base, Recipe(**{**OPEN_GATE, "gate_nats": 1e9}))
    assert life.learn(experience(2)).state.block == (f"{1:032x}",)


def test_measuring_is_cut_into_windows_of_one_pass(base, probes, monkeypatch):
    passes, original = [], BaseModel.hidden

    def hidden(*args, **kwargs):
        passes.append(1)
        return original(*args, **kwargs)

    monkeypatch.setattr(BaseModel, "hidden", hidden)
    most, before = 0, 0
    for _ in probes.shares(base, ["emoji"], "shorter", 0.0):
        most, before = max(most, len(passes) - before), len(passes)
    assert len(passes) > 5 and most <= 2


@pytest.mark.slow  # four dozen pairs of follow-ups, each with answers of its own
def test_on_the_embedded_model_the_later_word_counts_and_other_wishes_stay():
    base = load_base("pocket", device="cpu")
    probes, rng, recipe = Probes.of(base), random.Random(1), Recipe()
    least, enough = recipe.moot_share, recipe.reach_nats
    assert least is not None and enough is not None

    def moot(pairs: list[tuple[Preference, Preference]], beside: bool = False) -> float:
        found = []
        for earlier, newer in pairs:
            texts = rng.choice(held_out(earlier)), rng.choice(held_out(newer))
            if beside:  # two wishes at once, then the second again in other words
                texts = f"{texts[0]} {rng.choice(held_out(newer))}", texts[1]
            found += finished(probes.shares(base, [texts[0]], texts[1], enough))
        return sum(share < least for share in found) / len(found)

    others = [(one, rng.choice([two for two in NON_DEFAULT if two.dimension != one.dimension])) for one in NON_DEFAULT]
    values = [(one, two) for one in NON_DEFAULT for two in NON_DEFAULT if one.dimension == two.dimension and one != two]
    back = [(one, Preference(one.dimension, VALUES[one.dimension][0])) for one in NON_DEFAULT for _ in range(2)]
    assert moot([(one, one) for one in NON_DEFAULT]) >= 0.9
    assert moot(values) >= 0.8
    assert moot(others) <= 0.1
    assert moot(back) >= 0.4
    assert moot(others, beside=True) <= 0.2
