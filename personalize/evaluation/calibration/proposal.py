"""Settings that fit a model, from what was measured on it. Pure: plain numbers in, plain numbers out."""

from collections.abc import Mapping, Sequence
from typing import Any

from personalize.evaluation.calibration.findings import Findings, Together, Trial
from personalize.evaluation.calibration.thresholds import short, thresholds

ALPHA_LR = 1.5e-3
"""lora_alpha · lr with which trials begin, for layers of gain 1: what large pretrained models are taught with."""
GAINS = (0.1, 10.0)
"""Gains beyond these do not move the first trial any further."""
ENOUGH_FALL = 0.5
"""One update that takes away half of the distance to its teacher is fast enough; more is not tried."""
SHARE_OF_ALONE = 0.8
"""A block is not too long while the wishes in it hold at least this often, relative to each told alone."""


def block_size(measured: Sequence[Together]) -> int:
    """Return the most follow-ups that the teacher may be told at once: the last size before the wishes get lost."""
    best = 1
    for one in sorted(measured, key=lambda one: one.size):
        if one.rate < SHARE_OF_ALONE * one.alone:
            break
        best = one.size
    return best


def first_rate(gain: float, lora_alpha: float) -> float:
    """Return the learning rate of the first trial: ``ALPHA_LR`` for layers that stretch their input by ``gain``."""
    low, high = GAINS
    return short(ALPHA_LR * min(max(gain, low), high) / lora_alpha)


def enough(trial: Trial) -> bool:
    """Tell whether a larger learning rate need not be tried."""
    return trial.is_sound and trial.fall >= ENOUGH_FALL


def best_trial(trials: Sequence[Trial]) -> Trial | None:
    """Return the first trial that was enough, else the sound one whose loss fell most; None where it never fell."""
    falling = [trial for trial in trials if trial.is_sound and trial.fall > 0]
    fast = [trial for trial in falling if enough(trial)]
    return fast[0] if fast else max(falling, key=lambda trial: trial.fall, default=None)


def learning_rate(trials: Sequence[Trial]) -> float | None:
    """Return the rate with which one update takes away ``ENOUGH_FALL``, else the best one tried; None for none.

    Between the first trial that was enough and the one before it, the fall is taken to grow with log lr.
    """
    best = best_trial(trials)
    if best is None:
        return None
    place = list(trials).index(best)
    if place == 0 or not enough(best):
        return best.lr
    before = trials[place - 1]
    share = (ENOUGH_FALL - before.fall) / (best.fall - before.fall)
    return before.lr * (best.lr / before.lr) ** share


def recipe_settings(findings: Findings) -> Mapping[str, Any] | None:
    """Return the fields of a ``Recipe`` that these findings settle, with a name; None where one is not settled."""
    entry = thresholds(findings)
    lr = learning_rate(findings.trials)
    if entry is None or lr is None:
        return None
    return {
        "name": "calibrated",
        "gate_nats": entry.gate_nats,
        "reach_nats": entry.reach_nats,
        "block_size": block_size(findings.together),
        "lr": short(lr),
    }
