"""What became of a person's follow-ups, by what a person would call them."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
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
        joined: by kind of follow-up, those that the gate let into the user's block.
        update_ms: wall time of every update that was applied.
    """

    outcomes: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    joined: Counter[str] = field(default_factory=Counter)
    update_ms: list[float] = field(default_factory=list)

    def count(self, said: Said, outcome: Outcome, metrics: Mapping[str, float]) -> None:
        """Count one follow-up.

        Args:
            metrics: of its update; empty where there was none.
        """
        self.outcomes[said.kind][outcome.value] += 1
        self.joined[said.kind] += bool(metrics.get("informative"))
        if outcome is Outcome.APPLIED and "update_ms" in metrics:
            self.update_ms.append(metrics["update_ms"])

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
            "joined": dict(self.joined),
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


def joined_share(lines: Iterable[Mapping[str, Any]], *, complaints: bool) -> tuple[float, int] | None:
    """Return the share of follow-ups that joined a block, and of how many; older lines do not say it: None.

    Args:
        lines: measurements.
        complaints: count complaints, else everything else.
    """
    joined = asked = 0
    for line in lines:
        for kind, found in line.get("joined", {}).items():
            if (kind == "complaint") == complaints:
                joined, asked = joined + found, asked + sum(line["outcomes"][kind].values())
    return (joined / asked, asked) if asked else None
