"""The steps of one update: every user's adapter towards what the teacher says about that user's turns.

All users' rows are one batch, yet each user is trained as if alone: a mean over the own replies, an own clip, an own
optimizer, and an own end, after K steps or as soon as no reply is further from the teacher than the recipe tolerates.

Shape letters: B rows, N trained positions, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from transformers import Cache

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
from personalize.learner.lesson import Pupil, row, told, told_row
from personalize.learner.passes import by_position, reply_log_probs
from personalize.learner.prefixes import Weights, load
from personalize.learner.recipe import Recipe
from personalize.learner.teacher import BaseTeacher
from personalize.model.base import BaseModel
from personalize.model.lora import LoraTensors
from personalize.model.rows import AdapterRows


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
        self._pupils = list(pupils)
        self._collate()
        self.before: Tensor | None = None

    def run(self) -> Iterator[None]:
        """Yield after every pass; at the end every pupil's ``num_steps`` is in its metrics, 0 where it had no need."""
        for pupil in self._pupils:
            pupil.metrics |= _extent(pupil)
        teacher_NV = self._teach()
        yield
        for step in range(self._recipe.num_steps):
            if step and self._recipe.teacher != "base":
                teacher_NV = self._teach()
                yield
            student_NV, goes_on = self._step(teacher_NV)
            if step == 0:
                self.before = student_NV[torch.isin(self._students.row, self._first_rows())]
            yield
            if not any(goes_on):
                return
            teacher_NV = self._let_go(goes_on, teacher_NV)

    def _collate(self) -> None:
        base, pupils = self._base, self._pupils
        self._counts = [len(pupil.turns) for pupil in pupils]
        self._students = collate([row(turn) for pupil in pupils for turn in pupil.turns], base.device)

    def _first_rows(self) -> Tensor:
        """Return the batch rows of every user's newest reply."""
        firsts = [self._first_row(pupil) for pupil in self._pupils]
        return torch.tensor(firsts, device=self._students.row.device)

    def _first_row(self, pupil: Pupil) -> int:
        return sum(self._counts[: next(place for place, one in enumerate(self._pupils) if one is pupil)])

    def _let_go(self, goes_on: Sequence[bool], teacher_NV: Tensor) -> Tensor:
        """Leave out the users who are done; return what the teacher says to the others."""
        if all(goes_on):
            return teacher_NV
        rows = torch.tensor([on for on, count in zip(goes_on, self._counts, strict=True) for _ in range(count)])
        kept = teacher_NV[rows.to(teacher_NV.device)[self._students.row]]
        self._pupils = [pupil for pupil, on in zip(self._pupils, goes_on, strict=True) if on]
        self._collate()
        return kept

    # --- teacher -----------------------------------------------------------------------------------------------

    def _teach(self) -> Tensor:
        """Return the teacher's log-probabilities [N, V]: the chosen weights, told the block."""
        if self._recipe.teacher == "base":
            asked = [
                told(self._base, pupil.lesson.user_id, turn, pupil.block)
                for pupil in self._pupils
                for turn in pupil.turns
            ]
            return self._base_teacher.log_probs(asked)
        factor = 1.0 if self._recipe.teacher == "live" else self._recipe.teacher_scale
        scaled = [replace(pupil.tensors, lora_alpha=pupil.tensors.lora_alpha * factor) for pupil in self._pupils]
        rows = [told_row(self._base, turn, pupil.block) for pupil in self._pupils for turn in pupil.turns]
        return reply_log_probs(self._base, collate(rows, self._base.device), self._rows(scaled))

    # --- student -----------------------------------------------------------------------------------------------

    def _step(self, teacher_NV: Tensor) -> tuple[Tensor, list[bool]]:
        """Take one optimizer step for every user who is not there yet.

        Returns:
            The students' log-probabilities [N, V] before it, and who took it.
        """
        with torch.enable_grad():
            rows = self._rows([pupil.tensors for pupil in self._pupils])
            student_NV = reply_log_probs(self._base, self._students, rows, grad=True, cache=self._known_prefixes())
            loss_N = self._loss(student_NV, teacher_NV) * self._weights(teacher_NV)
            losses = [part.mean() for part in per_sequence_mean(loss_N, self._students.row).split(self._counts)]
            goes_on = self._is_far(loss_N.detach())
            if any(goes_on):
                torch.stack([loss for loss, on in zip(losses, goes_on, strict=True) if on]).sum().backward()
        for pupil, loss, on in zip(self._pupils, losses, goes_on, strict=True):
            pupil.metrics["loss_last"] = float(loss.detach())
            pupil.metrics.setdefault("loss_first", pupil.metrics["loss_last"])
            if on:
                pupil.metrics["grad_norm"] = self._move(pupil)
                pupil.metrics["num_steps"] += 1
            elif pupil.metrics["num_steps"]:
                pupil.after = student_NV.detach()[self._students.row == self._first_row(pupil)]
        return student_NV.detach(), goes_on

    def _known_prefixes(self) -> Cache | None:
        """Return all prompts as the gate has read them, where it has read them all and under the very same weights.

        That is so before the first step, and where nothing is replayed.
        """
        prefixes = [pupil.prefix for pupil in self._pupils]
        for pupil in self._pupils:
            pupil.prefix = None
        if any(prefix is None for prefix in prefixes) or any(count > 1 for count in self._counts):
            return None
        assert not any(pupil.metrics["num_steps"] for pupil in self._pupils), "the parents' keys are of use only once"
        return load(self._students, prefixes, [Weights.of(self._base, pupil.parent) for pupil in self._pupils])

    def _move(self, pupil: Pupil) -> float:
        """Clip and step; return the gradient's norm before the clip."""
        norm = torch.nn.utils.clip_grad_norm_(pupil.parameters, self._recipe.max_grad_norm)
        pupil.optimizer.step()
        pupil.optimizer.zero_grad(set_to_none=True)
        return float(norm)

    def _is_far(self, loss_N: Tensor) -> list[bool]:
        """Tell who goes on: some reply is further from the teacher than tolerated, or the follow-up is in no step yet.

        What joined the block is always worth a first step: the block it joined is published with it.
        """
        if not self._recipe.enough_nats or self._recipe.objective == "sampled":
            return [True] * len(self._pupils)
        near_B = per_sequence_sum(loss_N, self._students.row) <= self._recipe.enough_nats
        far = [bool((~part).any()) for part in near_B.split(self._counts)]  # not a number is not near
        return [
            on or bool(pupil.metrics["informative"] and not pupil.metrics["num_steps"])
            for on, pupil in zip(far, self._pupils, strict=True)
        ]

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


def _extent(pupil: Pupil) -> dict[str, float]:
    return {
        "num_trained_tokens": float(sum(sum(turn.completion_mask) for turn in pupil.turns)),
        "num_trained_turns": float(len(pupil.turns)),
        "num_steps": 0.0,
    }
