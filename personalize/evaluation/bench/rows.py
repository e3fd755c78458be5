"""One line of the table: a ratio, or another number that belongs to one run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

LEFT_OUT = "left out of the short size"


@dataclass(frozen=True, slots=True)
class Row:
    """One measured number.

    Attributes:
        figure: what was measured, without the model.
        value: None where it could not be measured; then ``reason`` says why.
        unit: "x" for a ratio.
        goal: a sign and a number in the same unit.
        n: measurements behind the value.
        reason: why there is no value, or a remark.
        samples: medians that the value was made from, for the raw file; ms unless the name says otherwise.
        curve: name of the picture that the value is a point of, and its place on the horizontal axis.
    """

    figure: str
    value: float | None
    unit: str = "x"
    goal: str | None = None
    n: int | None = None
    reason: str | None = None
    samples: Mapping[str, Any] = field(default_factory=dict)
    curve: tuple[str, float] | None = None

    @property
    def is_left_out(self) -> bool:
        """Whether nobody tried to measure it, so that an earlier measurement still stands."""
        return left_out(self.value, self.reason)


def left_out(value: float | None, reason: str | None) -> bool:
    """Whether a row with this value and reason is one that nobody tried to measure."""
    return value is None and (reason or "").startswith(LEFT_OUT)


def missing(figures: Sequence[str], reason: str, unit: str = "x", goal: str | None = None) -> list[Row]:
    """Return rows that could not be measured, for ``reason``."""
    return [Row(figure, None, unit, goal, reason=reason) for figure in figures]
