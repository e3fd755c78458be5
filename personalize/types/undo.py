"""What taking back one turn comes to."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

UndoStatus = Literal["exact", "recomputed", "planned"]


@dataclass(frozen=True, slots=True)
class UndoReport:
    """What taking back one turn came to.

    Attributes:
        status: ``exact``: a kept version that has learnt from just the other turns is the head again, bit for bit.
            ``recomputed``: the later turns were learnt once more, so the result is not the adapter that would have
            been. ``planned``: a dry run; nothing was changed.
        replaced: number of the head that had learnt from the turn.
        start: number of the newest version that has learnt nothing but what stays; None is the beginning.
        version: number of the new head; None where the beginning serves again, and in a dry run.
        num_turns: later turns that were, or would be, learnt once more; 0 where the undo is exact.
        outcomes: how many of them came to which outcome.
    """

    user_id: str
    turn_id: str
    status: UndoStatus
    replaced: int
    start: int | None = None
    version: int | None = None
    num_turns: int = 0
    outcomes: Mapping[str, int] = field(default_factory=dict)
