"""What the told teacher answers to everyday questions, and what becomes of that in an update."""

from dataclasses import replace

import pytest
import torch

from personalize.config import LoraSettings
from personalize.errors import ContextTooLong, InvalidParameter, TemplateError
from personalize.learner import HindsightLearner, Recipe
from personalize.learner.lesson import Pupil, open_pupil
from personalize.learner.recipe import OFFICIAL_LIVE, PAPER
from personalize.learner.rehearsal import Rehearsals
from personalize.types import Experience, Lesson, Message, Outcome
from tests.learner.conftest import CharacterRenderer, experience, run

RECIPE = Recipe(gate_nats=None, replay=0, rehearse=3, rehearse_tokens=7, num_steps=2, lr=1e-2)


def pupil_of(base, turn: Experience, *block: Experience) -> Pupil:
    pupil = open_pupil(base, Lesson(turn, user_id="ada"), None, RECIPE, LoraSettings())
    pupil.block = block or (turn,)
    return pupil


def rehearsed(base, *pupils: Pupil, recipe: Recipe = RECIPE) -> None:
    for _ in Rehearsals(base).give(pupils, recipe):
        pass


def greedy(base, prompt: tuple[int, ...], count: int) -> tuple[int, ...]:
    """Return the reply by one plain forward of the whole text per token."""
    reply: list[int] = []
    with torch.no_grad():
        for _ in range(count):
            reply.append(int(base.head(base.hidden(torch.tensor([[*prompt, *reply]]))[:, -1]).argmax()))
            if reply[-1] in base.renderer.end_ids:
                break
    return tuple(reply)


def test_they_are_the_told_bases_own_greedy_answers(base):
    turn, other = experience(1, "no lists"), experience(2, "shorter")
    pupil = pupil_of(base, turn, other, turn)
    rehearsed(base, pupil)
    assert len(pupil.rehearsals) == 3
    plain = {base.renderer.render((Message("user", text),)): text for text in base.probes}
    for one in pupil.rehearsals:
        text = plain[one.student.prompt_ids]
        told = base.renderer.render((Message("user", text),), ["shorter", "no lists"])
        assert one.told.row.prompt_ids == told
        assert one.student.completion_ids == one.told.row.completion_ids == greedy(base, told, 7)
        assert set(one.student.completion_mask) == {1}
        assert (one.told.owner, one.told.plain_ids) == ("ada", one.student.prompt_ids)


def test_the_turns_own_system_message_stands_before_the_question(base):
    system = Message("system", "be a pirate")
    turn = experience(1)
    turn = replace(turn, messages=(system, Message("user", "hi"), Message("assistant", "yo"), *turn.messages))
    pupil = pupil_of(base, turn)
    rehearsed(base, pupil)
    allowed = {base.renderer.render((system, Message("user", text))) for text in base.probes}
    assert pupil.rehearsals and all(one.student.prompt_ids in allowed for one in pupil.rehearsals)


def test_every_turn_draws_its_own_questions_and_always_the_same_ones(base):
    asked = []
    for number in (1, 1, 2):
        pupil = pupil_of(base, experience(number))
        rehearsed(base, pupil)
        asked.append([one.student.prompt_ids for one in pupil.rehearsals])
    assert asked[0] == asked[1] != asked[2]
    assert all(len(set(prompts)) == 3 for prompts in asked), "no question twice in one update"


def test_users_do_not_change_each_others(base):
    together = [pupil_of(base, experience(n, "no lists" * n)) for n in (1, 2)]
    rehearsed(base, *together)
    for pupil in together:
        alone = pupil_of(base, pupil.lesson.experience)
        rehearsed(base, alone)
        assert pupil.rehearsals == alone.rehearsals


def windows(keeper: Rehearsals, *pupils: Pupil, recipe: Recipe = RECIPE) -> int:
    """Return after how many passes all have their rehearsals."""
    return sum(1 for _ in keeper.give(pupils, recipe))


def test_what_was_answered_is_not_asked_again(base):
    keeper, turn = Rehearsals(base, 100), experience(1)
    first, again = pupil_of(base, turn), pupil_of(base, turn)
    assert windows(keeper, first) > 0 and windows(keeper, again) == 0
    assert again.rehearsals == first.rehearsals


@pytest.mark.parametrize("change", ["block", "system", "tokens", "user"])
def test_another_block_system_message_length_or_user_is_asked_anew(base, change):
    keeper, turn, recipe = Rehearsals(base, 100), experience(1), RECIPE
    windows(keeper, pupil_of(base, turn))
    other = pupil_of(base, turn, *([turn, experience(2, "shorter")] if change == "block" else []))
    if change == "system":
        turn = replace(turn, messages=(Message("system", "be a pirate"), *turn.messages))
        other = pupil_of(base, turn)
    if change == "tokens":
        recipe = replace(recipe, rehearse_tokens=5)
    if change == "user":
        other.lesson = replace(other.lesson, user_id="ben")
    assert windows(keeper, other, recipe=recipe) > 0
    fresh = pupil_of(base, other.lesson.experience, *other.block)
    fresh.lesson = other.lesson
    rehearsed(base, fresh, recipe=recipe)
    assert other.rehearsals == fresh.rehearsals


def test_answers_are_forgotten_with_their_user(base):
    keeper, turn = Rehearsals(base, 100), experience(1)
    for name in ("ada", "ben"):
        pupil = pupil_of(base, turn)
        pupil.lesson = replace(pupil.lesson, user_id=name)
        windows(keeper, pupil)
    assert keeper.owners() == {"ada", "ben"}
    keeper.forget("ada")
    assert keeper.owners() == {"ben"} and windows(keeper, pupil_of(base, turn)) > 0


def test_nothing_is_kept_of_the_nameless_and_no_more_than_allowed(base):
    keeper, turn = Rehearsals(base, 4), experience(1)
    nameless = pupil_of(base, turn)
    nameless.lesson = replace(nameless.lesson, user_id="")
    windows(keeper, nameless)
    assert not keeper.owners()
    for number in range(5):
        windows(keeper, pupil_of(base, experience(number)))
        assert len(keeper._kept) <= 4
    assert windows(keeper, pupil_of(base, experience(4))) == 0, "the newest answers are those that stay"


@pytest.mark.parametrize("error", [ContextTooLong("too long"), TemplateError("no system role")])
def test_a_question_that_cannot_be_put_is_left_out(base, monkeypatch, error):
    unwelcome = base.probes[0]

    class Refusing(CharacterRenderer):
        def render(self, messages, follow_ups=()):
            if messages[-1].content == unwelcome:
                raise error
            return super().render(messages, follow_ups)

    monkeypatch.setattr(base, "renderer", Refusing())
    pupil = pupil_of(base, experience(1))
    rehearsed(base, pupil, recipe=replace(RECIPE, rehearse=len(base.probes), rehearse_tokens=1))
    assert len(pupil.rehearsals) == len(base.probes) - 1


def test_a_question_without_room_for_a_whole_answer_is_left_out(base):
    long, short = (pupil_of(base, experience(n, "x" * length)) for n, length in ((1, 350), (2, 3)))
    rehearsed(base, long, short, recipe=replace(RECIPE, rehearse_tokens=150))
    assert base.max_model_len == 512 and not long.rehearsals
    assert len(short.rehearsals) == 3 and all(len(one.student.completion_ids) > 7 for one in short.rehearsals)


def test_without_a_single_question_an_update_goes_on(base, monkeypatch, tmp_path):
    class Refusing(CharacterRenderer):
        def render(self, messages, follow_ups=()):
            if follow_ups and messages[-1].content in base.probes:
                raise ContextTooLong("too long")
            return super().render(messages, follow_ups)

    monkeypatch.setattr(base, "renderer", Refusing())
    (report,) = run(HindsightLearner(base, RECIPE), [Lesson(experience(1))], [None], [tmp_path])
    assert report.outcome is Outcome.APPLIED and report.metrics["num_rehearsed"] == 0


def test_they_are_trained_along(base, tmp_path):
    (report,) = run(HindsightLearner(base, RECIPE), [Lesson(experience(1))], [None], [tmp_path])
    reply = sum(experience(1).completion_mask)
    assert report.outcome is Outcome.APPLIED
    assert (report.metrics["num_trained_turns"], report.metrics["num_rehearsed"]) == (1, 3)
    assert reply < report.metrics["num_trained_tokens"] <= reply + 3 * 7


def test_the_papers_forms_rehearse_nothing():
    assert PAPER.rehearse == OFFICIAL_LIVE.rehearse == 0


@pytest.mark.parametrize("values", [{"rehearse": -1}, {"rehearse": 65}, {"rehearse": 1.5}, {"rehearse_tokens": 0}])
def test_what_is_out_of_range_is_refused(values):
    with pytest.raises(InvalidParameter):
        Recipe(**values)
