"""One model, calibrated: findings, verdicts, and the settings that follow."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

from personalize.evaluation.calibration.findings import Findings, summary
from personalize.evaluation.calibration.gates import Gate, gates, reasons, usable
from personalize.evaluation.calibration.proposal import recipe_settings
from personalize.evaluation.calibration.thresholds import Thresholds, thresholds


@dataclass(frozen=True, slots=True)
class Calibration:
    """What is known about a model before anybody is personalized on it.

    Attributes:
        model: as it was named.
        findings: the numbers.
        gates: the verdicts on them.
        recipe: fields of a ``Recipe`` for this model; None for one that cannot be personalized.
    """

    model: str
    base_digest: str
    findings: Findings
    gates: tuple[Gate, ...]
    recipe: Mapping[str, Any] | None

    @classmethod
    def of(cls, model: str, base_digest: str, findings: Findings) -> "Calibration":
        """Judge ``findings`` and propose settings where every required gate passed."""
        verdicts = gates(findings)
        return cls(model, base_digest, findings, verdicts, recipe_settings(findings) if usable(verdicts) else None)

    @property
    def is_usable(self) -> bool:
        return self.recipe is not None

    @property
    def thresholds(self) -> Thresholds | None:
        """What lets a follow-up into the block, and how well; None where no signal was measured."""
        return thresholds(self.findings)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why not; empty for a usable model."""
        return reasons(self.gates)

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values; signals and reaches as their quartiles."""
        findings = asdict(self.findings)
        findings["signals"] = {kind: asdict(one) for kind, one in summary(self.findings).items()}
        whole = {
            "model": self.model,
            "base_digest": self.base_digest,
            "usable": self.is_usable,
            "reasons": list(self.reasons),
            "gates": [asdict(gate) for gate in self.gates],
            "findings": findings,
            "thresholds": None if self.thresholds is None else asdict(self.thresholds),
            "recipe": None if self.recipe is None else dict(self.recipe),
        }
        return {name: _plain(value) for name, value in whole.items()}


def _plain(value: Any) -> Any:
    """Return ``value`` as JSON can hold it: a number that is none becomes null."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value
