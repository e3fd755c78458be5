"""How far a follow-up reaches, and what follows from that for its turn."""

import math
import random
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from personalize.errors import ContextTooLong, TemplateError
from personalize.learner import HindsightLearner, Recipe
from personalize.learner.gate import is_informative
from personalize.learner.greedy import finished
from personalize.learner.probes import MAX_TOKENS, NUM_QUESTIONS, SPARED, Probes
from personalize.model.base import BaseModel
from personalize.model.loading import load_base
from personalize.types import Lesson, Message, Outcome, Window
from personalize.world import small_talk
from personalize.world.preferences import NON_DEFAULT, PREFERENCES
from personalize.world.topics import held_out_topics
from personalize.world.wordings import held_out
from tests.learner.conftest import CharacterRenderer, Life, experience, run
from tests.learner.test_update import weights

WISH, LONG = "shorter", "x" * 600
OPEN_GATE = {"gate_nats": 0.0, "moot_share": None, "lr": 1e-2, "replay": 2, "rehearse": 0, "num_steps": 2}


@pytest.fixture(scope="module")
def probes(base) -> Probes:
    return Probes.of(base)


def token_by_token(base, prompt, answer) -> list[float]:
    """The log-probability of every token, each by a plain forward over all that stands before it."""
    found = []
    for place, token in enumerate(answer):
        with torch.no_grad():
            logits = base.head(base.hidden(torch.tensor([[*prompt, *answer[:place]]])))[0, -1]
        found.append(float(logits.log_softmax(-1)[token]))
    return found


def slowly(base, probes, told_before, told_after) -> list[list[float]]:
    """The fall of every answer's every token between two blocks."""
    falls = []
    for question, row in zip(probes.questions, probes.rows, strict=True):
        prompts = [base.renderer.render((Message("user", question),), told) for told in (told_before, told_after)]
        before, after = (token_by_token(base, prompt, row.completion_ids) for prompt in prompts)
        falls.append([one - other for one, other in zip(before, after, strict=True)])
    return falls


# --- what is measured ------------------------------------------------------------------------------------------------


def test_answers_are_the_bases_own_greedy_ones(base, probes):
    assert probes.questions == base.probes[:NUM_QUESTIONS]
    for question, row in zip(probes.questions, probes.rows, strict=True):
        assert row.prompt_ids == base.renderer.render((Message("user", question),))
        ids = torch.tensor([[*row.prompt_ids, *row.completion_ids]])
        greedy = base.head(base.hidden(ids))[0].argmax(-1)[len(row.prompt_ids) - 1 : -1]
        assert tuple(greedy.tolist()) == row.completion_ids
        assert len(row.completion_ids) == MAX_TOKENS or row.completion_ids[-1] in base.renderer.end_ids


def test_reach_equals_one_plain_forward_per_token(base, probes):
    (reach,) = probes.reach(base, [WISH])
    falls = [sum(answer) for answer in slowly(base, probes, [], [WISH])]
    assert reach == pytest.approx(sorted(falls)[SPARED], abs=1e-4)
    assert reach > 0.1


def test_reversal_equals_one_plain_forward_per_token(base, probes):
    standing, newer, enough, shares = ["with emoji", "shorter"], "none at all", 1.5, []
    for text in standing:
        taken = [max(sum(answer), enough) for answer in slowly(base, probes, [], [text])]
        given = [max(answer) for answer in slowly(base, probes, [text, newer], [text])]  # a rise is a fall backwards
        shares.append(sorted(back / nats for back, nats in zip(given, taken, strict=True))[SPARED])
    assert finished(probes.reversal(base, standing, newer, enough)) == pytest.approx(max(shares), abs=1e-4)
    assert abs(shares[0] - shares[1]) > 0.01 < min(shares)


def test_several_are_each_alone(base, probes):
    follow_ups = [WISH, "and what of ships?", LONG, "x"]
    assert probes.reach(base, follow_ups) == [probes.reach(base, [one])[0] for one in follow_ups]


def test_nothing_said_reaches_nobody(base, probes):
    assert probes.reach(base, ["", " \n"]) == pytest.approx([0.0, 0.0], abs=1e-4)
    assert finished(probes.reversal(base, [], WISH, 1.0)) == 0.0
    assert finished(probes.reversal(base, [WISH], " ", 1.0)) == pytest.approx(0.0, abs=1e-4)


def test_one_answer_that_is_not_finite_is_spared_and_two_are_no_reach(base, probes):
    def poisoned(count: int) -> Probes:
        number = sum(len(row.completion_ids) for row in probes.rows[:count])
        return replace(probes, base_N=torch.cat([torch.full((number,), torch.nan), probes.base_N[number:]]))

    assert math.isfinite(*poisoned(1).reach(base, [WISH]))
    (reach,) = poisoned(len(probes.rows)).reach(base, [WISH])
    assert math.isnan(reach)
    assert not is_informative({"signal": 5.0, "reach": reach}, Recipe())


@pytest.mark.parametrize("error", [None, ContextTooLong, TemplateError])
def test_what_cannot_be_told_has_the_benefit_of_the_doubt(base, probes, monkeypatch, error):
    """Beyond the context, or refused by the renderer, which raises for one reason or the other."""
    plain = CharacterRenderer.render

    def render(self, messages, follow_ups=()):
        if error is not None and LONG in follow_ups:
            raise error("no")
        return plain(self, messages, follow_ups)

    monkeypatch.setattr(CharacterRenderer, "render", render)
    assert probes.reach(base, [LONG, WISH]) == [math.inf, probes.reach(base, [WISH])[0]]


def test_what_does_not_fit_is_not_taken_back(base, probes):
    alone = finished(probes.reversal(base, ["with emoji"], WISH, 1.0))
    assert finished(probes.reversal(base, [LONG, "with emoji"], WISH, 1.0)) == alone > 0
    assert finished(probes.reversal(base, [LONG], WISH, 1.0)) == 0.0


# --- what follows from it --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ({"signal": 0.5}, False),
        ({"signal": math.nan}, False),
        ({"signal": 1.5, "reach": 2.5}, True),
        ({"signal": 1.5, "reach": 1.5}, False),
        ({"signal": 1.5, "reach": math.inf}, True),
        ({"signal": 1.5, "reach": 1.5, "reversal": 0.4}, True),
        ({"signal": 1.5, "reach": 1.5, "reversal": 0.2}, False),
        ({"signal": 1.5, "reach": math.nan, "reversal": 0.4}, True),
        ({"signal": 1.5, "reach": 1.5, "reversal": math.nan}, False),
    ],
)
def test_a_follow_up_has_to_move_its_own_reply_and_others(metrics, expected):
    assert is_informative(metrics, Recipe(gate_nats=1.0, reach_nats=2.0, reversal_share=0.3)) is expected


@pytest.mark.parametrize("signal", [0.5, 1.5, math.nan])
def test_less_is_asked_where_the_recipe_asks_less(signal):
    assert is_informative({"signal": signal}, Recipe(gate_nats=1.0, reach_nats=None)) is (signal == 1.5)
    assert is_informative({"signal": signal}, Recipe(gate_nats=None))


def test_what_reaches_nobody_does_not_join_the_block(base, tmp_path):
    life = Life(HindsightLearner(base, Recipe(**OPEN_GATE, reach_nats=1e6)), tmp_path)
    report = life.learn(experience(1))
    assert report.outcome is Outcome.SKIPPED_LOW_SIGNAL and report.state.block == ()
    assert report.metrics["informative"] == 0.0
    assert report.metrics["signal"] > 0 and 0 < report.metrics["reach"] < 1e6
    assert "reversal" not in report.metrics, "there is nothing that it could take back"
    life.learner = HindsightLearner(base, Recipe(**OPEN_GATE, reach_nats=0.0))
    assert life.learn(experience(1)).state.block == (f"{1:032x}",)


def test_its_turn_is_trained_like_any_that_moves_nothing(base, tmp_path):
    """Bit for bit what the same turn comes to where its own signal is too small."""
    every = Recipe(**OPEN_GATE, reach_nats=None)
    found = []
    for name, recipe in (("reach", replace(every, reach_nats=1e6)), ("signal", replace(every, gate_nats=1e6))):
        life = Life(HindsightLearner(base, every), tmp_path / name)
        life.learn(experience(1))
        life.learner = HindsightLearner(base, recipe)
        report = life.learn(experience(2))
        assert report.outcome is Outcome.APPLIED and report.metrics["informative"] == 0.0
        assert report.state.block == report.state.replay == (f"{1:032x}",)
        found.append((report, weights(tmp_path / name / "user0" / "2")))
    (reached, ours), (quiet, theirs) = found
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    assert reached.metrics["reversal"] > 0 and "reach" not in quiet.metrics


def test_what_takes_back_what_stands_joins_the_block(base, tmp_path, monkeypatch):
    life = Life(HindsightLearner(base, Recipe(**OPEN_GATE, reach_nats=None)), tmp_path)
    life.learn(experience(1, follow_up="with emoji"))
    told = []

    def reversal(self, base, standing, follow_up, enough_nats, alone):
        told.append((tuple(standing), follow_up, enough_nats))
        yield Window()
        return 7.0

    monkeypatch.setattr(Probes, "reach", lambda self, base, follow_ups, alone: [0.1])
    monkeypatch.setattr(Probes, "reversal", reversal)
    life.learner = HindsightLearner(base, Recipe(**OPEN_GATE, reach_nats=2.0))
    report = life.learn(experience(2, follow_up="no emoji"))
    assert told == [(("with emoji",), "no emoji", 2.0)]
    assert report.state.block == (f"{1:032x}", f"{2:032x}") and report.metrics["reversal"] == 7.0


def test_several_users_get_what_each_gets_alone(base, tmp_path, probes):
    learner = HindsightLearner(base, Recipe(**OPEN_GATE, reach_nats=2.0))
    follow_ups = ["shorter", "x", "with emoji, and a title"]
    turns = [experience(number, follow_up=text) for number, text in enumerate(follow_ups)]
    paths = [tmp_path / str(number) for number in range(3)]
    for path in paths:
        path.mkdir()
    reports = run(learner, [Lesson(turn) for turn in turns], [None] * 3, paths)
    found = [report.metrics["reach"] for report in reports]
    assert found == [round(reach, 6) for reach in probes.reach(base, follow_ups)]
    assert [report.metrics["informative"] for report in reports] == [float(reach >= 2.0) for reach in found]


@pytest.mark.parametrize("recipe", [{"gate_nats": None}, {"gate_nats": 1e6}, {"gate_nats": 0.0, "reach_nats": None}])
def test_nobody_is_asked_in_vain(base, tmp_path, monkeypatch, recipe):
    def asking(base):
        raise AssertionError("probes were asked")

    monkeypatch.setattr(Probes, "asking", asking)
    report = Life(HindsightLearner(base, Recipe(num_steps=1, rehearse=0, **recipe)), tmp_path).learn(experience(1))
    assert "reach" not in report.metrics and "reversal" not in report.metrics


# --- what is kept ----------------------------------------------------------------------------------------------------


def test_a_reading_may_come_from_whoever_has_kept_it(base, probes):
    readings = {text: probes.read(base, text) for text in (WISH, "with emoji", LONG)}
    kept = readings.__getitem__
    assert probes.reach(base, [WISH, LONG], kept) == probes.reach(base, [WISH, LONG])
    for one in (probes.reversal, probes.shares):
        found = [finished(one(base, ["with emoji", LONG], WISH, 1.0, *alone)) for alone in ((), (kept,))]
        assert found[0] == found[1]


def test_the_gate_reads_a_follow_up_once_and_forgets_it_with_its_user(base, tmp_path, monkeypatch):
    read, original = [], Probes.read

    def counted(self, base, follow_up):
        read.append(follow_up)
        return original(self, base, follow_up)

    monkeypatch.setattr(Probes, "read", counted)
    recipe = Recipe(**{**OPEN_GATE, "moot_share": 0.0}, reach_nats=1e6, reversal_share=0.0)
    kept, fresh = HindsightLearner(base, recipe), HindsightLearner(base, recipe, answers_kept=0)

    def live(learner: HindsightLearner, name: str, user: str) -> list[dict[str, float]]:
        life, found = Life(learner, tmp_path / name, user_id=user), []
        for number, text in enumerate(("shorter", "with emoji", "shorter"), start=1):
            report = life.learn(experience(number, follow_up=text))
            found.append({key: report.metrics[key] for key in ("reach", "num_moot") if key in report.metrics})
        return found

    once = live(kept, "kept", "ada")
    assert sorted(read) == ["shorter", "with emoji"] and kept.owners() == {"ada"}
    assert live(kept, "again", "ben") == once and len(read) == 4, "nobody profits from what another one said"
    kept.forget("ada")
    assert kept.owners() == {"ben"}
    read.clear()
    assert live(fresh, "fresh", "ada") == once and len(read) > 4 and not fresh.owners()
    read.clear()
    assert live(kept, "nameless", "") == once and len(read) > 4 and kept.owners() == {"ben"}


# --- between decode steps --------------------------------------------------------------------------------------------


def test_asking_keeps_no_window_for_itself(base, tmp_path, monkeypatch):
    """No window of a first update has more passes than one of a later update, which asks nothing."""
    passes, original = [], BaseModel.hidden

    def hidden(*args, **kwargs):
        passes.append(1)
        return original(*args, **kwargs)

    def passes_per_window(turn):
        found = [len(passes)]
        path = tmp_path / turn.turn_id
        path.mkdir()
        for _ in learner.update([Lesson(turn)], [None], [path]):
            found.append(len(passes))
        return [after - before for before, after in pairwise(found)]

    monkeypatch.setattr(BaseModel, "hidden", hidden)
    learner = HindsightLearner(base, Recipe(**OPEN_GATE, reach_nats=0.0))
    first, later = passes_per_window(experience(1)), passes_per_window(experience(2))
    assert sum(first) >= sum(later) + MAX_TOKENS
    assert max(first) <= max(later)


def test_an_update_that_is_abandoned_while_it_asks_leaves_the_next_to_ask(base, tmp_path):
    learner = HindsightLearner(base, Recipe(**OPEN_GATE, reach_nats=0.0))
    windows = learner.update([Lesson(experience(1))], [None], [tmp_path])
    for _ in range(MAX_TOKENS // 2):
        assert next(windows).reports is None
    windows.close()
    assert learner._gate._probes is None
    fresh = Life(HindsightLearner(base, learner.recipe), tmp_path / "fresh").learn(experience(1))
    again = Life(learner, tmp_path / "again").learn(experience(1))
    assert learner._gate._probes is not None and again.metrics["reach"] == fresh.metrics["reach"]


# --- the embedded model ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped():
    base = load_base("pocket", device="cpu")
    return base, Probes.of(base)


def share(found: list[float], limit: float | None = Recipe().reach_nats) -> float:
    assert limit is not None and found
    return sum(nats >= limit for nats in found) / len(found)


@pytest.mark.slow  # a hundred follow-ups, each told with all questions
def test_on_the_embedded_model_wishes_reach_and_everything_else_does_not(shipped):
    base, probes = shipped
    rng = random.Random(0)
    wishes = [text for wish in NON_DEFAULT for text in held_out(wish)]
    kinds = (small_talk.HELD_OUT_PRAISE, small_talk.HELD_OUT_REMARKS)
    idle = [*(text for kind in kinds for text in kind), *(small_talk.question(t, rng) for t in held_out_topics())]
    assert share(probes.reach(base, wishes)) >= 0.9
    assert share(probes.reach(base, idle)) <= 0.1


@pytest.mark.slow  # two hundred follow-ups, each told with all questions
def test_on_the_embedded_model_small_talk_before_a_question_or_a_wish_hides_neither(shipped):
    base, probes = shipped
    rng = random.Random(1)
    asked = [small_talk.question(rng.choice(held_out_topics()), rng) for _ in range(8)]
    kinds = (small_talk.HELD_OUT_PRAISE, small_talk.HELD_OUT_REMARKS)
    idle = [f"{text} {question}" for kind in kinds for text in kind for question in asked]
    wishes = [
        f"{small_talk.remark(rng)} {rng.choice(held_out(wish))} {question}"
        for wish in NON_DEFAULT
        for question in asked
    ]
    assert max(probes.reach(base, idle)) < Recipe().reach_nats
    assert share(probes.reach(base, wishes)) >= 0.9


@pytest.mark.slow  # a hundred follow-ups, each told with all questions twice
def test_on_the_embedded_model_a_wish_to_go_back_takes_back_what_stands(shipped):
    base, probes = shipped
    rng = random.Random(0)
    back = {one.dimension: one for one in PREFERENCES if one.is_default}
    reversals, idle = [], []
    enough, limit = Recipe().reach_nats, Recipe().reversal_share
    for wish in NON_DEFAULT:
        standing = [rng.choice(held_out(wish)) for _ in range(2)]
        reversals += [
            finished(probes.reversal(base, standing, text, enough)) for text in held_out(back[wish.dimension])
        ]
        others = (small_talk.praise(rng, held_out=True), small_talk.remark(rng, held_out=True))
        others = (*others, small_talk.question(rng.choice(held_out_topics()), rng))
        idle += [finished(probes.reversal(base, standing, text, enough)) for text in others]
    assert share(reversals, limit) >= 0.4
    assert share(idle, limit) <= 0.1
