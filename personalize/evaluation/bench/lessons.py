"""Turns to learn from, versions to start at, and updates that really are applied."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch

from personalize.errors import ContextTooLong
from personalize.evaluation.bench.subject import Subject
from personalize.learner import HindsightLearner, Recipe
from personalize.learner.batch import collate
from personalize.learner.canaries import Canaries
from personalize.learner.lesson import row, told_row
from personalize.model.base import BaseModel
from personalize.model.folder import CONFIG_FILE, WEIGHTS_FILE, content_digest
from personalize.types import AdapterRef, Experience, LearningState, Lesson, Message, Outcome, UpdateReport

_UNLIMITED: dict[str, Any] = {"max_delta_norm": 1e9, "max_reply_kl": 1e9, "max_canary_loss": 1.0, "enough_nats": 0.0}
"""The guards compute what they always do and refuse nothing, and no step is saved because the teacher is near: a random
model's numbers mean nothing to these limits."""

ONE_STEP = Recipe(name="one-step", gate_nats=None, num_steps=1, replay=0, rehearse=0, **_UNLIMITED)
"""One inner step on one turn; every follow-up is let in, after the gate has measured it."""

WHOLE = replace(Recipe(), gate_nats=None, **_UNLIMITED)
"""The default recipe with all its steps and replayed turns."""


def experience(base: BaseModel, number: int, history: int, reply: int) -> Experience:
    """Return a turn of at most ``history`` prompt tokens, as near as the words allow, and ``reply`` random ones."""
    assert base.renderer is not None
    words = [f"word{(number * 7 + place) % 50}" for place in range(history)]
    low, high = 1, history
    while low < high:  # the longest text that fits
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _fits(base, words[:middle], history) else (low, middle - 1)
    messages = (Message("user", " ".join(words[:low])),)
    generator = torch.Generator().manual_seed(number)
    ids = tuple(torch.randint(5, base.vocab_size, (reply,), generator=generator).tolist())
    prompt = base.renderer.render(messages)
    return Experience(f"{number:032x}", messages, prompt, ids, (1,) * reply, "Shorter, please.")


def _fits(base: BaseModel, words: list[str], history: int) -> bool:
    assert base.renderer is not None
    try:
        return len(base.renderer.render((Message("user", " ".join(words)),))) <= history
    except ContextTooLong:
        return False


def warm_learner(base: BaseModel, recipe: Recipe) -> HindsightLearner:
    """Return a learner whose canaries have been asked: that happens once in its life, and not for every recipe."""
    learner = HindsightLearner(base, recipe)
    if base not in _CANARIES:
        _CANARIES[base] = learner.canaries
    learner.canaries = _CANARIES[base]
    return learner


_CANARIES: WeakKeyDictionary[BaseModel, Canaries] = WeakKeyDictionary()


def lesson(base: BaseModel, number: int, history: int, reply: int, recipe: Recipe) -> Lesson:
    """Return a lesson whose memory fills the recipe's replay."""
    memory = tuple(experience(base, 1000 * (number + 1) + n, history, reply) for n in range(recipe.replay))
    state = LearningState((), tuple(one.turn_id for one in memory), len(memory))
    return Lesson(experience(base, number, history, reply), memory, state)


def update(
    learner: HindsightLearner, lessons: Sequence[Lesson], parents: Sequence[AdapterRef | None], folder: Path
) -> tuple[UpdateReport, ...]:
    """Run one update to its end, windows back to back.

    Raises:
        RuntimeError: one of the lessons was not applied: its time would be that of something else.
    """
    *_, last = learner.update(lessons, parents, [folder / str(place) for place in range(len(lessons))])
    reports = last.reports or ()
    outcomes = [report.outcome for report in reports]
    if outcomes != [Outcome.APPLIED] * len(lessons):
        raise RuntimeError(
            f"the updates ended with {[str(one) for one in outcomes]}; only applied ones may be measured"
        )
    return reports


@contextmanager
def parents(subject: Subject, count: int) -> Iterator[list[AdapterRef]]:
    """Hold a first version of ``count`` users, for every later update to begin with."""
    learner = warm_learner(subject.base, ONE_STEP)
    lessons = [lesson(subject.base, 500 + user, 32, 8, ONE_STEP) for user in range(count)]
    with tempfile.TemporaryDirectory() as name:
        update(learner, lessons, [None] * count, Path(name))
        yield [_first_version(user, Path(name) / str(user)) for user in range(count)]


def _first_version(user: int, folder: Path) -> AdapterRef:
    digest = content_digest(*((folder / name).read_bytes() for name in (CONFIG_FILE, WEIGHTS_FILE)))
    return AdapterRef(f"u_{user:032x}@1-{digest[:16]}", str(folder))


def num_teacher_tokens(base: BaseModel, turn: Experience) -> int:
    """Return how many tokens the teacher reads: the prompt with the block, and the reply but its last token."""
    told = collate([told_row(base, turn, [turn])])
    return told.prefix_ids.numel() + told.window_ids.numel()


def num_student_tokens(turn: Experience) -> tuple[int, int]:
    """Return the prefix's and the window's tokens of the turn itself."""
    plain = collate([row(turn)])
    return plain.prefix_ids.numel(), plain.window_ids.numel()
