"""What became of a person's follow-ups, by what a person would call them."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from personalize.evaluation.users import Said
from personalize.types import Outcome


@dataclass(slots=True)
class Tally:
    """Counts since the beginning of a stage.

    Attributes:
        outcomes: by kind of follow-up, then by outcome.
        update_ms: wall time of every update that was applied.
    """

    outcomes: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    update_ms: list[float] = field(default_factory=list)

    def count(self, said: Said, outcome: Outcome) -> None:
        self.outcomes[said.kind][outcome.value] += 1

    @property
    def follow_ups(self) -> int:
        return sum(counts.total() for counts in self.outcomes.values())

    @property
    def complaints(self) -> int:
        """Follow-ups to replies that violated a preference."""
        return self.outcomes["complaint"].total() if "complaint" in self.outcomes else 0

    def to_json(self) -> dict[str, Any]:
        return {
            "follow_ups": self.follow_ups,
            "outcomes": {kind: dict(counts) for kind, counts in self.outcomes.items()},
            "update_ms": round(median(self.update_ms), 1) if self.update_ms else None,
        }


def applied_share(tallies: list[dict[str, Any]], *, complaints: bool) -> tuple[float, int] | None:
    """Return the share of follow-ups that moved the adapter, and of how many; None where there were none.

    Args:
        tallies: ``outcomes`` of measurements.
        complaints: count complaints, else everything else.
    """
    counts: Counter[str] = Counter()
    for outcomes in tallies:
        for kind, found in outcomes.items():
            if (kind == "complaint") == complaints:
                counts.update(found)
    return (counts[Outcome.APPLIED.value] / counts.total(), counts.total()) if counts else None
