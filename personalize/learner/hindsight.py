"""Incremental hindsight self-distillation, several users in one pass.

Paper: "Aligning Language Models from User Interactions", arXiv 2603.12273. Score a reply's own tokens with and without
the user's next message in the prompt, and move the policy by the difference.

Method: (1) *gate*: is the follow-up a wish, that is, would it have changed answers to other questions? (2) *block*:
what passed joins a small rolling block of the user's own follow-ups; (3) *teacher*: a model that is told the block
scores the new reply, a few earlier ones, and its own answers to a few everyday questions (*rehearsals*); (4) at most K
steps of Adam on the divergence of each, until it is small; (5) *guards*.

Deviations from the paper, each by default and each undone by `recipe.PAPER`: the teacher is the base model (a live one
has no interior fixed point and collapses over hundreds of turns), it is told a rolling block (else a base teacher
un-learns what the newest follow-up does not mention), the loss is a full-vocabulary KL (a sampled token is noisy at
batch 1), a gate (Adam's first step has full size however small the signal), replay, rehearsals.
Evidence: docs/decisions.

Shape letters: N trained positions, V vocabulary.
"""

import time
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor

from personalize.config import LoraSettings
from personalize.errors import AdapterError
from personalize.functional import per_sequence_sum, reverse_kl
from personalize.learner.background import in_background
from personalize.learner.batch import collate
from personalize.learner.canaries import Canaries
from personalize.learner.gate import Gate
from personalize.learner.guards import delta_norm, judge
from personalize.learner.lesson import Pupil, fits, names, open_pupil, row
from personalize.learner.moments import save_moments
from personalize.learner.passes import by_position, reply_log_probs
from personalize.learner.recipe import Recipe
from personalize.learner.rehearsal import Rehearsals
from personalize.learner.teacher import BaseTeacher
from personalize.learner.training import Training
from personalize.model.base import BaseModel
from personalize.model.folder import write_adapter
from personalize.model.rows import AdapterRows
from personalize.types import AdapterRef, Lesson, Outcome, UpdateReport, Window


class HindsightLearner:
    """Trains users' adapters on one base model; implements ``protocols.Learner``.

    It runs on the thread that owns the device, between decode steps: a window is one pass, or a moment in which files
    are read or written on another thread.
    """

    def __init__(
        self,
        base: BaseModel,
        recipe: Recipe | None = None,
        lora: LoraSettings | None = None,
        *,
        teacher_cache_bytes: int = 0,
        answers_kept: int = 4096,
    ):
        """Open a school on ``base``.

        Args:
            teacher_cache_bytes: most bytes that a base teacher keeps of the conversations it reads.
            answers_kept: most rehearsed answers that are kept, of all users, and most readings of the gate's questions;
                some hundred numbers each.
        """
        self.base = base
        self.recipe = recipe or Recipe()
        self.lora = lora or LoraSettings()
        self.base_teacher = BaseTeacher(base, teacher_cache_bytes)
        self._gate = Gate(base, self.base_teacher, answers_kept)
        self._rehearsals = Rehearsals(base, answers_kept)

    @cached_property
    def canaries(self) -> Canaries:
        """What the base says to a few fixed questions; the first update asks, pass by pass, if nobody did before."""
        return Canaries.of(self.base)

    def forget(self, user_id: str) -> None:
        """Let go of everything that is kept of this user's conversations; on the thread that owns the device."""
        self.base_teacher.forget(user_id)
        self._rehearsals.forget(user_id)
        self._gate.forget(user_id)

    def owners(self) -> frozenset[str]:
        """Return the users of whom something is kept."""
        return self.base_teacher.owners() | self._rehearsals.owners() | self._gate.owners()

    def update(
        self, lessons: Sequence[Lesson], parents: Sequence[AdapterRef | None], out_dirs: Sequence[Path]
    ) -> Iterator[Window]:
        """See ``protocols.Learner.update``."""
        began = time.perf_counter()
        pupils = yield from in_background(lambda: self._open_all(lessons, parents))
        for pupil in pupils:
            self._refuse_oversized(pupil)
        yield from self._gate.settle(_open(pupils), self.recipe)
        for pupil in _open(pupils):
            self._choose_turns(pupil)
        yield from self._train(_open(pupils))
        for pupil, out_dir in zip(pupils, out_dirs, strict=True):
            if pupil.outcome is Outcome.APPLIED:
                yield from in_background(partial(self._write, pupil, out_dir))
            pupil.metrics["update_ms"] = (time.perf_counter() - began) * 1000
        yield Window(tuple(self._report(pupil) for pupil in pupils))

    def _open_all(self, lessons: Sequence[Lesson], parents: Sequence[AdapterRef | None]) -> list[Pupil]:
        return [
            open_pupil(self.base, lesson, parent, self.recipe, self.lora)
            for lesson, parent in zip(lessons, parents, strict=True)
        ]

    # --- what is trained ---------------------------------------------------------------------------------------

    def _refuse_oversized(self, pupil: Pupil) -> None:
        experience = pupil.lesson.experience
        if not any(experience.completion_mask):
            pupil.outcome = Outcome.SKIPPED_LOW_SIGNAL
        elif not fits(self.base, experience, [experience]):
            pupil.outcome = Outcome.SKIPPED_TOO_LONG

    def _choose_turns(self, pupil: Pupil) -> None:
        newest = pupil.lesson.experience
        earlier = [turn for turn in pupil.remembered(pupil.lesson.state.replay) if turn.turn_id != newest.turn_id]
        replayed = earlier[max(0, len(earlier) - self.recipe.replay) :] if self.recipe.replay else []
        while pupil.block and not fits(self.base, newest, pupil.block):
            pupil.block = pupil.pass_over(pupil.block)
        turns = [newest, *reversed(replayed)]
        pupil.turns = tuple(turn for turn in turns if any(turn.completion_mask) and fits(self.base, turn, pupil.block))
        if not pupil.block:
            pupil.outcome = Outcome.SKIPPED_TOO_LONG

    # --- training ----------------------------------------------------------------------------------------------

    def _train(self, pupils: list[Pupil]) -> Iterator[Window]:
        pupils = [pupil for pupil in pupils if pupil.outcome is None]
        if not pupils:
            return
        yield from self._rehearsals.give(pupils, self.recipe)
        training = Training(self.base, self.recipe, pupils, self.base_teacher)
        for _ in training.run():
            yield Window()
        assert training.before is not None
        before = training.before.split([sum(pupil.lesson.experience.completion_mask) for pupil in pupils])
        for pupil in pupils:
            if not pupil.metrics["num_steps"]:  # the student already answers as the teacher would
                pupil.outcome = Outcome.SKIPPED_LOW_SIGNAL
        moved = [(pupil, part) for pupil, part in zip(pupils, before, strict=True) if pupil.outcome is None]
        if moved:
            yield from self._ask_canaries()
            self._check([pupil for pupil, _ in moved], torch.cat([part for _, part in moved]))
            yield Window()

    # --- guards and results ------------------------------------------------------------------------------------

    def _ask_canaries(self) -> Iterator[Window]:
        if "canaries" not in vars(self):
            self.canaries = yield from Canaries.asking(self.base)

    def _check(self, pupils: list[Pupil], before_NV: Tensor) -> None:
        """Judge every adapter on its newest reply and on the canaries.

        Args:
            before_NV: the parents' log-probabilities on the newest replies.
        """
        adapters = [pupil.tensors for pupil in pupils]
        newest = collate([row(pupil.turns[0]) for pupil in pupils], self.base.device)
        self._read_newest([pupil for pupil in pupils if pupil.after is None])
        after_NV = torch.cat([pupil.after for pupil in pupils if pupil.after is not None])
        moved_B = per_sequence_sum(by_position(self.base, reverse_kl, after_NV, before_NV), newest.row)
        lost = self.canaries.lost(self.base, adapters)
        for pupil, moved, share in zip(pupils, moved_B, lost, strict=True):
            pupil.metrics |= {
                "canary_loss": share,
                "reply_kl": float(moved),
                "delta_norm": delta_norm(pupil.tensors, pupil.parent),
            }
            pupil.outcome = judge(pupil.metrics, self.recipe)

    def _read_newest(self, pupils: list[Pupil]) -> None:
        """Have the finished adapters read their newest replies, where no pass of the training has done so."""
        if not pupils:
            return
        batch = collate([row(pupil.turns[0]) for pupil in pupils], self.base.device)
        after_NV = reply_log_probs(self.base, batch, AdapterRows.of([pupil.tensors for pupil in pupils]))
        for pupil, part in zip(pupils, after_NV.split([sum(p.turns[0].completion_mask) for p in pupils]), strict=True):
            pupil.after = part

    def _write(self, pupil: Pupil, out_dir: Path) -> None:
        try:
            write_adapter(out_dir, pupil.tensors, self.base)
        except AdapterError:  # the writer refuses non-finite weights: that is a verdict on the update, not a fault
            pupil.outcome = Outcome.REJECTED_NONFINITE
            return
        if self.recipe.keep_moments:
            save_moments(out_dir, pupil.optimizer, names(pupil.tensors))

    def _report(self, pupil: Pupil) -> UpdateReport:
        assert pupil.outcome is not None
        applied = pupil.outcome is Outcome.APPLIED
        return UpdateReport(
            turn_id=pupil.lesson.experience.turn_id,
            outcome=pupil.outcome,
            state=pupil.next_state(self.recipe) if applied else pupil.lesson.state,
            metrics={name: round(value, 6) for name, value in pupil.metrics.items()},
            tensors=pupil.tensors.copy() if applied else None,
        )


def _open(pupils: list[Pupil]) -> list[Pupil]:
    return [pupil for pupil in pupils if pupil.outcome is None]
