"""Replies to be trained on that no user ever asked for: how the teacher would have answered a few everyday questions.

A user's own turns are few and tell the wish in the middle of a chat, often where the chat itself already tells it. What
the user wants is that the *next* chat begins right. So the teacher, told the block, is asked a few of the model's
``probes``, each in a fresh chat behind the turn's own system message, and its greedy answers are trained on as if they
had been the user's: with the block before the teacher and without it before the student. They also hold fast what the
model knows about other matters than those that were talked about.

The base never changes, so what it answered to a question under some block it would answer again: answers are kept.

Source: context distillation (Snell et al., "Learning by Distilling Context", arXiv 2209.15189), with hindsight as the
context. Evidence: docs/decisions/0017.
"""

import random
from collections.abc import Generator, Sequence
from dataclasses import dataclass

from personalize.errors import ContextTooLong, TemplateError
from personalize.learner.batch import Row
from personalize.learner.greedy import Greedy, greedy_replies
from personalize.learner.kept import Kept
from personalize.learner.lesson import Exercise, Pupil
from personalize.learner.recipe import Recipe
from personalize.learner.teacher import Told
from personalize.model.base import BaseModel
from personalize.types import Message, Window

Prompts = tuple[tuple[int, ...], tuple[int, ...]]
"""One question as the student reads it, and as the teacher does."""


class Rehearsals:
    """Has the base rehearse, and keeps its answers by the user and by the whole prompt.

    Only the thread that owns the device touches it, ``forget`` included, but for ``owners``, which any thread may ask.

    Args:
        max_answers: most answers that are kept, least recently used out first; those of nameless users never are.
    """

    def __init__(self, base: BaseModel, max_answers: int = 0):
        self._base = base
        self._kept: Kept[_Name, Greedy] = Kept(max_answers)

    def give(self, pupils: Sequence[Pupil], recipe: Recipe) -> Generator[Window, None, None]:
        """Give every pupil its ``rehearsals``, all new ones answered in one batch; yields after every pass."""
        asked = [
            (pupil, plain, _Name(pupil.lesson.user_id, told, recipe.rehearse_tokens))
            for pupil in pupils
            for plain, told in _prompts(self._base, pupil, recipe)
        ]
        answers = yield from self._answers([name for *_, name in asked])
        for pupil, plain, name in asked:
            if answers[name].token_ids:
                pupil.rehearsals += (_exercise(name.owner, plain, answers[name]),)

    def forget(self, owner: str) -> None:
        """Let go of every answer that this user's follow-ups have shaped."""
        self._kept.forget(owner)

    def owners(self) -> frozenset[str]:
        """Return the users of whom something is kept."""
        return self._kept.owners()

    def _answers(self, names: Sequence["_Name"]) -> Generator[Window, None, dict["_Name", Greedy]]:
        kept = {name: self._kept.peek(name.owner, name) for name in names}
        found = {name: answer for name, answer in kept.items() if answer is not None}
        new = [name for name, answer in kept.items() if answer is None]
        if new:
            longest = max(name.max_tokens for name in new)
            replies = yield from greedy_replies(self._base, [name.told_ids for name in new], None, longest)
            found |= dict(zip(new, replies, strict=True))
        for name in names:
            self._kept.put(name.owner, name, found[name])
        return found


@dataclass(frozen=True, slots=True)
class _Name:
    """What an answer is found by: whose it is, and all that it depends on."""

    owner: str
    told_ids: tuple[int, ...]
    max_tokens: int


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
