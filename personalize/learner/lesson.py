"""One user's update in the making: what is trained, towards what, and from which weights."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from personalize.config import LoraSettings
from personalize.errors import ContextTooLong
from personalize.learner.batch import Row
from personalize.learner.moments import FILE, load_moments, new_optimizer
from personalize.learner.prefixes import Prefix
from personalize.learner.recipe import Recipe
from personalize.learner.teacher import Told
from personalize.model.base import BaseModel
from personalize.model.folder import new_adapter, read_version
from personalize.model.lora import LoraTensors
from personalize.types import AdapterRef, Experience, LearningState, Lesson, Outcome


@dataclass(frozen=True, slots=True)
class Exercise:
    """A reply to be trained on.

    Attributes:
        student: the reply under the prompt that the student reads.
        told: the same reply under the prompt that the teacher reads.
    """

    student: Row
    told: Told


@dataclass(slots=True)
class Pupil:
    """The adapter that one lesson moves.

    Attributes:
        lesson: what there is to learn from.
        tensors: the weights in training; leaves that require gradients.
        parent: the same weights before the update.
        optimizer: Adam over ``tensors``, with the parent's moments where the recipe keeps them.
        block: follow-ups that the teacher is told.
        unheard: older ones that still stand, for which there is no room beside this turn.
        turns: those whose replies are trained, the newest first; empty when there is nothing to do.
        rehearsals: what is trained besides; see ``learner.rehearsal``.
        outcome: set as soon as it is known.
        metrics: plain numbers for the report.
        prefix: the newest turn's prompt but its last token, as ``parent`` reads it; None once it is of no more use.
        live: log-probabilities [N, V] of ``parent`` on the newest reply, while the gate needs them.
        after: log-probabilities [N, V] of the finished ``tensors`` on the newest reply, where a pass has found them.
    """

    lesson: Lesson
    tensors: LoraTensors
    parent: LoraTensors
    optimizer: torch.optim.Adam
    block: tuple[Experience, ...] = ()
    unheard: tuple[Experience, ...] = ()
    turns: tuple[Experience, ...] = ()
    rehearsals: tuple[Exercise, ...] = ()
    outcome: Outcome | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    prefix: Prefix | None = None
    live: Tensor | None = None
    after: Tensor | None = None

    def exercises(self, base: BaseModel) -> list[Exercise]:
        """Return all that is trained, the newest reply first."""
        owner = self.lesson.user_id
        return [*(Exercise(row(turn), told(base, owner, turn, self.block)) for turn in self.turns), *self.rehearsals]

    @property
    def parameters(self) -> list[Tensor]:
        return self.optimizer.param_groups[0]["params"]

    def remembered(self, turn_ids: Sequence[str]) -> tuple[Experience, ...]:
        """Return the turns of that name that still exist, in the order of ``turn_ids``."""
        known = {turn.turn_id: turn for turn in self.lesson.memory}
        return tuple(known[turn_id] for turn_id in turn_ids if turn_id in known)

    def pass_over(self, told: tuple[Experience, ...]) -> tuple[Experience, ...]:
        """Leave the oldest of ``told`` out of this update, not out of what stands; return the others."""
        self.unheard = (*self.unheard, told[0])
        return told[1:]

    def next_state(self, recipe: Recipe) -> LearningState:
        """Return what the recipe remembers once this update is published."""
        old = self.lesson.state
        newest = self.lesson.experience.turn_id
        replay = tuple(turn for turn in old.replay if turn != newest)
        standing = tuple(turn.turn_id for turn in (*self.unheard, *self.block))
        # Where the chat itself already tells the wish, teacher and student agree: such a turn is not worth a replay.
        if self.metrics["informative"]:
            replay = (*replay, newest)
        return LearningState(
            block=standing[max(0, len(standing) - recipe.block_size) :],
            replay=replay[len(replay) - recipe.max_memory :] if len(replay) > recipe.max_memory else replay,
            num_updates=old.num_updates + 1,
        )


def open_pupil(
    base: BaseModel, lesson: Lesson, parent: AdapterRef | None, recipe: Recipe, settings: LoraSettings
) -> Pupil:
    """Load the parent's weights and kept moments, or begin a new adapter, whose seed is its first turn's id."""
    start = new_adapter(base, settings, seed=_seed(lesson)) if parent is None else read_version(parent, base)
    start = start.copy(device=base.device)
    tensors = start.copy(device=base.device, requires_grad=True)
    optimizer = new_optimizer(list(tensors.parameters()), recipe)
    if parent is not None and recipe.keep_moments:
        moments = Path(parent.path) / FILE if lesson.moments is None else Path(lesson.moments)
        load_moments(moments, optimizer, names(tensors))
    return Pupil(lesson, tensors, start, optimizer)


def names(tensors: LoraTensors) -> list[str]:
    """Return the names of the adapter's parameters, in the optimizer's order."""
    return [name for name, _ in tensors.named_parameters()]


def row(experience: Experience, prompt_ids: Sequence[int] | None = None) -> Row:
    """Return the reply of ``experience`` under its own prompt, or under ``prompt_ids``."""
    prompt = experience.prompt_ids if prompt_ids is None else tuple(prompt_ids)
    return Row(prompt, experience.completion_ids, experience.completion_mask)


def told_row(base: BaseModel, experience: Experience, block: Sequence[Experience]) -> Row:
    """Return the reply of ``experience`` under its prompt with the block's follow-ups.

    Raises:
        ContextTooLong: with the block the prompt leaves no room for a single token.
    """
    assert base.renderer is not None, "learning needs a tokenizer and a chat template"
    follow_ups = [turn.follow_up for turn in block]
    return row(experience, base.renderer.teacher_prompt(experience.messages, experience.prompt_ids, follow_ups))


def told(base: BaseModel, owner: str, experience: Experience, block: Sequence[Experience]) -> Told:
    """Return what a teacher reads of a turn of the user ``owner``; see ``told_row``."""
    return Told(owner, told_row(base, experience, block), experience.prompt_ids)


def fits(base: BaseModel, experience: Experience, block: Sequence[Experience]) -> bool:
    """Tell whether the teacher can read the turn whole: nothing is ever cut on one side only."""
    try:
        told = told_row(base, experience, block)
    except ContextTooLong:
        return False
    return len(told.prompt_ids) + len(told.completion_ids) <= base.max_model_len


def _seed(lesson: Lesson) -> int:
    return int.from_bytes(lesson.experience.turn_id.encode()[-8:].rjust(8, b"\0"), "big") & (2**63 - 1)
