"""Reviews: a published version judged by what it says."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from personalize.types.versions import AdapterRef


@dataclass(frozen=True, slots=True)
class ReviewRequest:
    """What a learner has to be told to judge a published version by what it says.

    Attributes:
        adapter: the version.
        told: follow-ups of the user's standing block, oldest first: the wishes that are no faults. None where they are
            not all known any more; then the version is held against absolute limits only.
    """

    adapter: AdapterRef
    told: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Review:
    """What a version's replies to a few fixed questions came to.

    Attributes:
        breach: the first limit that was broken, in one word; None where the version passed.
        metrics: what was measured, by name.
    """

    breach: str | None
    metrics: Mapping[str, float] = field(default_factory=dict)
