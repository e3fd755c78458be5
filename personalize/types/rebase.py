"""What rebuilding an adapter for another base comes to."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

RebaseStatus = Literal[
    "rebuilt", "planned", "current", "no_adapter", "refused", "imported", "no_turns", "nothing_learnt"
]


@dataclass(frozen=True, slots=True)
class RebaseReport:
    """What a rebuild of one user's adapter for another base came to.

    Attributes:
        status: ``rebuilt``; ``planned`` in a dry run. Nothing was changed where the user has a head for this base
            or has begun anew on it (``current``), has none for any base (``no_adapter``), is paused or has not
            agreed (``refused``), where the head was made from an imported folder (``imported``), where no turn is
            kept that can be told to this base (``no_turns``), or where no turn taught this base anything
            (``nothing_learnt``).
        source: number of the other base's head that is rebuilt.
        version: number of the new head.
        num_turns: kept turns that were, or would be, learnt from.
        num_lost: updates of the head that cannot be repeated: the turn is pruned, or does not fit this base.
        outcomes: how many of the turns came to which outcome.
    """

    user_id: str
    status: RebaseStatus
    source: int | None = None
    version: int | None = None
    num_turns: int = 0
    num_lost: int = 0
    outcomes: Mapping[str, int] = field(default_factory=dict)
