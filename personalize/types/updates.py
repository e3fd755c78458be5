"""Updates: what a learner reports of one, and what is known about it afterwards."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from personalize.types.lessons import LearningState
from personalize.types.outcomes import Outcome


@dataclass(frozen=True, slots=True)
class UpdateReport:
    """What one user's update came to.

    Attributes:
        turn_id: the turn it was about.
        outcome: ``applied``, ``skipped_low_signal``, ``skipped_too_long``, ``rejected_*`` or ``failed``.
        state: the recipe's new memory (with ``applied``; else the parent's).
        metrics: plain numbers: ``signal``, ``loss_first``, ``loss_last``, ``kl``, ``grad_norm``, ``delta_norm``,
            ``num_trained_tokens``, ``update_ms``, …
        tensors: inside the process only, the published weights as the runtime takes them; never pickled, may be None.
    """

    turn_id: str
    outcome: Outcome
    state: LearningState = field(default_factory=LearningState)
    metrics: Mapping[str, float] = field(default_factory=dict)
    tensors: Any = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Window:
    """One slice of an update between two safe cuts; the last one carries the reports, in the order of the lessons."""

    reports: tuple[UpdateReport, ...] | None = None


@dataclass(frozen=True, slots=True)
class UpdateInfo:
    """One follow-up's way through the learning queue."""

    update_id: str
    request_id: str
    turn_id: str
    outcome: Outcome
    version: int | None
    created_s: float
    finished_s: float | None
    metrics: Mapping[str, float]
