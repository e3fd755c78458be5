"""The steps of one update: every user's adapter towards what the teacher says about that user's turns.

All users' rows are one batch, yet each user is trained as if alone: a mean over the own replies, an own clip, an own
optimizer, and an own end. A reply that is no further from the teacher than the recipe tolerates is left out of the
further steps: it would cost as much as the others and say nothing. A user ends with the last reply, or after K steps.

Shape letters: B rows, N trained positions, V vocabulary.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import fmean

import torch
from torch import Tensor

from personalize.functional import (
    advantages,
    forward_kl,
    per_sequence_mean,
    per_sequence_sum,
    reachable,
    reverse_kl,
    sampled_token_loss,
    top_k_reverse_kl,
)
from personalize.learner.batch import Batch, collate
from personalize.learner.lesson import Exercise, Pupil
from personalize.learner.passes import by_position, read_prefixes, reply_log_probs
from personalize.learner.prefixes import Known, Prefix, Weights
from personalize.learner.recipe import Recipe
from personalize.learner.teacher import BaseTeacher, Told
from personalize.model.base import BaseModel
from personalize.model.lora import LoraTensors
from personalize.model.rows import AdapterRows


@dataclass(slots=True)
class _Course:
    """One user's way through the steps.

    Attributes:
        left: the exercises that are trained still, by their place among all of the pupil's; the newest reply is 0.
        losses: of every exercise, mean over its reply, when it was read last.
    """

    pupil: Pupil
    left: dict[int, Exercise]
    losses: dict[int, float] = field(default_factory=dict)

    @property
    def has_newest(self) -> bool:
        """The newest reply is trained still; it then is the first one here."""
        return 0 in self.left

    def note(self, losses: Sequence[float]) -> None:
        """Take down how far the replies were in a pass; the mean is over all, the near ones as they were left."""
        self.losses |= dict(zip(self.left, losses, strict=True))
        self.pupil.metrics["loss_last"] = fmean(self.losses.values())
        self.pupil.metrics.setdefault("loss_first", self.pupil.metrics["loss_last"])


class Training:
    """Trains the adapters of several users, whose blocks and turns are chosen.

    Attributes:
        before: after the first pass, the parents' log-probabilities [N, V] on every user's newest reply.
    """

    def __init__(
        self, base: BaseModel, recipe: Recipe, pupils: Sequence[Pupil], base_teacher: BaseTeacher | None = None
    ):
        """Args: base_teacher: asked where the recipe's teacher is the base; None is one that has kept nothing."""
        assert pupils
        self._base, self._recipe = base, recipe
        self._base_teacher = base_teacher or BaseTeacher(base)
        self._courses = [_Course(pupil, dict(enumerate(pupil.exercises(base)))) for pupil in pupils]
        self._collate()
        self._parents: Known | None = None
        self.before: Tensor | None = None

    def run(self) -> Iterator[None]:
        """Yield after every pass; at the end every pupil's ``num_steps`` is in its metrics, 0 where it had no need."""
        for course in self._courses:
            course.pupil.metrics |= _extent(course)
        self._parents = self._read_prompts()
        yield
        teacher_NV = self._teach()
        yield
        for step in range(self._recipe.num_steps):
            if step and self._recipe.teacher != "base":
                teacher_NV = self._teach()
                yield
            student_NV, far = self._step(teacher_NV)
            self._parents = None  # their keys are of use only before the first step
            if step == 0:
                self.before = student_NV[torch.isin(self._students.row, self._newest_rows())]
            yield
            if not any(map(any, far)):
                return
            teacher_NV = self._let_go(far, teacher_NV)

    def _collate(self) -> None:
        self._counts = [len(course.left) for course in self._courses]
        self._students = collate([one.student for one in self._exercises()], self._base.device)

    def _exercises(self) -> list[Exercise]:
        return [one for course in self._courses for one in course.left.values()]

    def _newest_rows(self) -> Tensor:
        """Return the batch rows of every user's newest reply, before anything has been left out."""
        return torch.tensor([self._first_row(place) for place in range(len(self._courses))], device=self._base.device)

    def _first_row(self, place: int) -> int:
        return sum(self._counts[:place])

    def _let_go(self, far: Sequence[Sequence[bool]], teacher_NV: Tensor) -> Tensor:
        """Leave out the replies that are near enough; return what the teacher says to the others."""
        if all(map(all, far)):
            return teacher_NV
        rows = torch.tensor([on for some in far for on in some], device=teacher_NV.device)
        kept = teacher_NV[rows[self._students.row]]
        for course, some in zip(self._courses, far, strict=True):
            course.left = {place: one for (place, one), on in zip(course.left.items(), some, strict=True) if on}
        self._courses = [course for course in self._courses if course.left]
        self._collate()
        return kept

    # --- teacher -----------------------------------------------------------------------------------------------

    def _teach(self) -> Tensor:
        """Return the teacher's log-probabilities [N, V]: the chosen weights, told the block."""
        told = [one.told for one in self._exercises()]
        if self._recipe.teacher == "base":
            borrows = self._recipe.teacher_prefix == "live"
            return self._behind_the_parents(told) if borrows else self._base_teacher.log_probs(told)
        factor = 1.0 if self._recipe.teacher == "live" else self._recipe.teacher_scale
        live = [course.pupil.tensors for course in self._courses]
        scaled = [replace(tensors, lora_alpha=tensors.lora_alpha * factor) for tensors in live]
        return reply_log_probs(self._base, collate([one.row for one in told], self._base.device), self._rows(scaled))

    def _behind_the_parents(self, told: Sequence[Told]) -> Tensor:
        """Return what the base says that reads the block itself, and what stands before it as the parents have."""
        assert self._parents is not None, "the teacher is asked before the first step"
        shared = [one.num_shared for one in told]
        batch = collate([one.row for one in told], self._base.device, prefix_lengths=shared)
        return reply_log_probs(self._base, batch, None, known=self._parents)

    # --- student -----------------------------------------------------------------------------------------------

    def _step(self, teacher_NV: Tensor) -> tuple[Tensor, list[list[bool]]]:
        """Take one optimizer step for every user with a reply that is not near enough.

        Returns:
            The students' log-probabilities [N, V] before it, and for every user which replies were too far.
        """
        with torch.enable_grad():
            rows = self._rows([course.pupil.tensors for course in self._courses])
            student_NV = reply_log_probs(self._base, self._students, rows, grad=True, known=self._parents)
            loss_N = self._loss(student_NV, teacher_NV) * self._weights(teacher_NV)
            losses = per_sequence_mean(loss_N, self._students.row).split(self._counts)
            far = self._are_far(loss_N.detach())
            moving = [loss.mean() for loss, some in zip(losses, far, strict=True) if any(some)]
            if moving:
                torch.stack(moving).sum().backward()
        for place, (course, loss, some) in enumerate(zip(self._courses, losses, far, strict=True)):
            course.note(loss.tolist())
            pupil = course.pupil
            if any(some):
                pupil.metrics["grad_norm"] = self._move(pupil)
                pupil.metrics["num_steps"] += 1
            elif pupil.metrics["num_steps"] and course.has_newest:
                pupil.after = student_NV.detach()[self._students.row == self._first_row(place)]
        return student_NV.detach(), far

    def _read_prompts(self) -> Known:
        """Return all prompts but their last tokens as the parents read them; what the gate has read is not read again.

        They are the students' own before the first step.
        """
        weights = [Weights.of(self._base, course.pupil.parent) for course in self._courses for _ in course.left]
        prefixes: list[Prefix | None] = []
        for course in self._courses:
            prefixes += [course.pupil.prefix, *[None] * (len(course.left) - 1)]
            course.pupil.prefix = None
        missing = [row for row, prefix in enumerate(prefixes) if prefix is None]
        if missing:
            students = [one.student for one in self._exercises()]
            parents = self._rows([course.pupil.parent for course in self._courses]).take(missing, len(students))
            read = read_prefixes(
                self._base, [students[row] for row in missing], parents, [weights[row] for row in missing]
            )
            for row, prefix in zip(missing, read, strict=True):
                prefixes[row] = prefix
        return Known(prefixes, weights)

    def _move(self, pupil: Pupil) -> float:
        """Clip and step; return the gradient's norm before the clip."""
        for group in pupil.optimizer.param_groups:
            group["lr"] = self._recipe.lr * self._stride(pupil.metrics["loss_last"])
        norm = torch.nn.utils.clip_grad_norm_(pupil.parameters, self._recipe.max_grad_norm)
        pupil.optimizer.step()
        pupil.optimizer.zero_grad(set_to_none=True)
        return float(norm)

    def _stride(self, loss: float) -> float:
        """Return the share of the rate that a step takes where the replies are ``loss`` nats per token away."""
        if self._recipe.full_step_nats is None or self._recipe.objective == "sampled":
            return 1.0
        return min(1.0, math.sqrt(max(loss, 0.0) / self._recipe.full_step_nats))

    def _are_far(self, loss_N: Tensor) -> list[list[bool]]:
        """Tell, for every user, which replies are further from the teacher than tolerated.

        All of them where the recipe has no distance to judge by.
        """
        if not self._recipe.enough_nats or self._recipe.objective == "sampled":
            return [[True] * count for count in self._counts]
        near_B = per_sequence_sum(loss_N, self._students.row) <= self._recipe.enough_nats
        return [(~part).tolist() for part in near_B.split(self._counts)]  # not a number is not near

    def _weights(self, teacher_NV: Tensor) -> Tensor | float:
        """Return how much every position counts, [N]."""
        if self._recipe.tolerance is None:
            return 1.0
        return reachable(teacher_NV, self._students.target_ids, self._students.row, self._recipe.tolerance)

    def _loss(self, student_NV: Tensor, teacher_NV: Tensor) -> Tensor:
        """Return the objective at every position, [N]."""
        match self._recipe.objective:
            case "forward_kl":
                return by_position(self._base, forward_kl, student_NV, teacher_NV)
            case "reverse_kl":
                return by_position(self._base, reverse_kl, student_NV, teacher_NV)
            case "top_k":
                distance = partial(top_k_reverse_kl, k=min(self._recipe.top_k, student_NV.shape[-1]))
                return by_position(self._base, distance, student_NV, teacher_NV)
            case "sampled":
                return self._sampled(student_NV, teacher_NV)

    def _sampled(self, student_NV: Tensor, teacher_NV: Tensor) -> Tensor:
        batch = self._students
        student_N, teacher_N = _of_targets(student_NV, batch), _of_targets(teacher_NV, batch)
        recipe = self._recipe
        advantage_N = advantages(student_N, teacher_N, batch.row, centred=recipe.centred, clip=recipe.clip)
        return sampled_token_loss(student_N, advantage_N)

    def _rows(self, adapters: Sequence[LoraTensors]) -> AdapterRows:
        """Return what a batch reads in which adapter i has the rows of user i."""
        return AdapterRows.of(adapters, [user for user, count in enumerate(self._counts) for _ in range(count)])


def _of_targets(log_probs_NV: Tensor, batch: Batch) -> Tensor:
    """Return the log-probability of every token that was sampled, [N]."""
    return log_probs_NV.gather(-1, batch.target_ids[:, None])[:, 0]


def _extent(course: _Course) -> dict[str, float]:
    return {
        "num_trained_tokens": float(sum(sum(one.student.completion_mask) for one in course.left.values())),
        "num_trained_turns": float(len(course.pupil.turns)),
        "num_rehearsed": float(len(course.pupil.rehearsals)),
        "num_steps": 0.0,
    }
