"""Estimates written down as figures: the number, its goal, its interval beside it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from personalize.evaluation.study.book import Book
from personalize.evaluation.study.statistics import MIN_CELLS, Estimate
from personalize.reporting.figures import Figure, measured


@dataclass(frozen=True, slots=True)
class Scribe:
    """Writes figures of one model on one device.

    Attributes:
        book: the measurements.
        model: name of the model; figures of another than pocket name it.
        command: what repeats the measurement.
    """

    book: Book
    model: str
    device: str
    command: str

    def figure(
        self, name: str, value: float | None, goal: str | None, n: int | None, remark: str | None = None, unit="share"
    ) -> Figure:
        if value is None and remark is None:
            remark = f"not measured yet under the present recipe; `{self.command}` goes on with it"
        name = name if self.model == "pocket" else f"{name}, on {Path(self.model).name}"
        value = None if value is None else round(value, 4)
        return measured(name, value, unit=unit, goal=goal, n=n, device=self.device, command=self.command, reason=remark)

    def mean(self, name: str, found: Estimate | None, goal: str | None, unit: str = "share") -> Figure:
        """Write a mean over cells, its interval beside it."""
        return self.figure(name, found and found.mean, goal, found and found.n, interval(found), unit)

    def bound(self, name: str, found: Estimate | None, end: str, goal: str) -> Figure:
        """Write the low or high end of an interval."""
        value = None if found is None else (found.low if end == "low" else found.high)
        return self.figure(name, value, goal, found and found.n, interval(found))

    def worst(self, name: str, found: Mapping[int, Estimate | None], end: str, goal: str) -> Figure:
        """Write the end of the interval at the turn where it is worst."""
        known = {turn: one for turn, one in found.items() if one is not None}
        if not known:
            return self.figure(name, None, goal, None)
        if end == "low":
            turn = min(known, key=lambda turn: known[turn].low)
        else:
            turn = max(known, key=lambda turn: known[turn].high)
        written = self.bound(name, known[turn], end, goal)
        return self.figure(name, written.value, goal, written.n, f"at turn {turn}: {written.reason}")


def interval(found: Estimate | None) -> str | None:
    """Return the remark that stands beside an estimate."""
    if found is None:
        return None
    few = "" if found.n >= MIN_CELLS else f"; only {found.n} cells, an interval needs {MIN_CELLS}"
    return f"mean {found} over {found.n} cells{few}"
