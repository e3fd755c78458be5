"""A few updates on trial, with rising learning rates: how far does one update of the real learner get?

Every trial is the first update of a user who has complained once, made by the learner of production with its guards,
and thrown away.
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from personalize.config import LoraSettings
from personalize.evaluation.calibration.findings import Trial
from personalize.evaluation.calibration.proposal import enough
from personalize.learner import HindsightLearner, Recipe
from personalize.model.base import BaseModel
from personalize.types import Experience, Lesson, Outcome, UpdateReport

FACTOR = 3.0
MAX_TRIALS = 5


def try_rates(
    base: BaseModel, recipe: Recipe, lora: LoraSettings, turns: Sequence[Experience], first_lr: float
) -> Iterator[Trial]:
    """Yield trials from ``first_lr`` upwards until one update is enough, or too much.

    Args:
        turns: complaints about replies, one simulated user each; at least one.
    """
    learner, lr = HindsightLearner(base, lora=lora), first_lr
    for _ in range(MAX_TRIALS):
        learner.recipe = replace(recipe, gate_nats=None, replay=0, rehearse=0, lr=lr)
        trial = _trial(lr, _update(learner, turns))
        yield trial
        if enough(trial) or not trial.is_sound:
            return
        lr *= FACTOR


def _update(learner: HindsightLearner, turns: Sequence[Experience]) -> tuple[UpdateReport, ...]:
    with tempfile.TemporaryDirectory() as folder:
        out_dirs = [Path(folder) / str(place) for place in range(len(turns))]
        for path in out_dirs:
            path.mkdir()
        *_, last = learner.update([Lesson(turn) for turn in turns], [None] * len(turns), out_dirs)
    assert last.reports is not None
    return last.reports


def _trial(lr: float, reports: Sequence[UpdateReport]) -> Trial:
    # Whose reply was near the teacher's from the start says nothing about a rate.
    reports = [report for report in reports if report.outcome is not Outcome.SKIPPED_LOW_SIGNAL] or reports
    applied = [report for report in reports if report.outcome is Outcome.APPLIED]

    def mean(name: str) -> float:
        return fmean(report.metrics.get(name, float("nan")) for report in reports)

    return Trial(
        lr=lr,
        num_turns=len(reports),
        num_applied=len(applied),
        outcomes=tuple(sorted({str(report.outcome) for report in reports})),
        loss_first=mean("loss_first"),
        loss_last=mean("loss_last"),
        grad_norm=mean("grad_norm"),
        reply_kl=mean("reply_kl"),
    )
