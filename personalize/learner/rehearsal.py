"""Replies to be trained on that no user ever asked for: how the teacher would have answered a few everyday questions.

A user's own turns are few and tell the wish in the middle of a chat, often where the chat itself already tells it. What
the user wants is that the *next* chat begins right. So the teacher, told the block, is asked a few of the model's
``probes``, each in a fresh chat behind the turn's own system message, and its greedy answers are trained on as if they
had been the user's: with the block before the teacher and without it before the student. They also hold fast what the
model knows about other matters than those that were talked about.

Source: context distillation (Snell et al., "Learning by Distilling Context", arXiv 2209.15189), with hindsight as the
context. Evidence: docs/decisions/0017.
"""

import random
from collections.abc import Generator, Sequence

from personalize.errors import ContextTooLong, TemplateError
from personalize.learner.batch import Row
from personalize.learner.greedy import Greedy, greedy_replies
from personalize.learner.lesson import Exercise, Pupil
from personalize.learner.recipe import Recipe
from personalize.learner.teacher import Told
from personalize.model.base import BaseModel
from personalize.types import Message, Window

Prompts = tuple[tuple[int, ...], tuple[int, ...]]
"""One question as the student reads it, and as the teacher does."""


def rehearse(base: BaseModel, pupils: Sequence[Pupil], recipe: Recipe) -> Generator[Window, None, None]:
    """Give every pupil its ``rehearsals``, all answered in one batch; yields after every pass."""
    asked = [(pupil, one) for pupil in pupils for one in _prompts(base, pupil, recipe)]
    if not asked:
        return
    answers = yield from greedy_replies(base, [told for _, (_, told) in asked], None, recipe.rehearse_tokens)
    for (pupil, (plain, _)), answer in zip(asked, answers, strict=True):
        if answer.token_ids:
            pupil.rehearsals += (_exercise(pupil.lesson.user_id, plain, answer),)


def _prompts(base: BaseModel, pupil: Pupil, recipe: Recipe) -> list[Prompts]:
    """Return some of the base's questions, others for every turn and the same ones for the same turn.

    Those are left out that leave no room for a whole answer: in a batch they would cut everybody's short.
    """
    count = min(recipe.rehearse, len(base.probes))
    drawn = random.Random(pupil.lesson.experience.turn_id).sample(base.probes, count)
    system = [message for message in pupil.lesson.experience.messages if message.role == "system"]
    found = (_prompt(base, (*system, Message("user", text)), pupil) for text in drawn)
    room = base.max_model_len - recipe.rehearse_tokens
    return [one for one in found if one is not None and len(one[1]) <= room]


def _prompt(base: BaseModel, messages: tuple[Message, ...], pupil: Pupil) -> Prompts | None:
    """Return one question with and without the block; None where it does not fit or cannot be put."""
    assert base.renderer is not None, "learning needs a tokenizer and a chat template"
    try:
        told = base.renderer.render(messages, [turn.follow_up for turn in pupil.block])
        return base.renderer.render(messages), told
    except (ContextTooLong, TemplateError):
        return None


def _exercise(owner: str, plain_ids: tuple[int, ...], answer: Greedy) -> Exercise:
    told = answer.row
    return Exercise(Row(plain_ids, told.completion_ids, told.completion_mask), Told(owner, told, plain_ids))
