"""The measurements as a reader looks for them: by arm, control and turn, of one model and the present recipes."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from personalize.evaluation.study.arms import ARMS, BASE, DEFAULT_ARM
from personalize.evaluation.study.profiles import PAIRS
from personalize.evaluation.study.results import Line
from personalize.evaluation.study.statistics import Estimate, estimate

CellName = tuple[str, int]
"""Profile and seed."""
Value = str | Callable[[Line], float | None]
"""A field of a line, or what is made of it; None leaves the cell out."""


class Book:
    """Lines of one model, measured under the recipes that the arms have today.

    Args:
        lines: measurements of any model and recipe.
        model: digest of the model that is read about.
    """

    def __init__(self, lines: Iterable[Line], model: str):
        self._lines: dict[tuple[str, str, int], dict[CellName, Line]] = {}
        for line in lines:
            arm = ARMS.get(line["arm"])
            if arm is not None and line["model"] == model and line["recipe"] == arm.digest:
                at = self._lines.setdefault((line["arm"], line["control"], line["turn"]), {})
                at[line["profile"], line["seed"]] = line

    def lines(
        self, turn: int, control: str = "", arm: str = DEFAULT_ARM, profiles: frozenset[str] | None = PAIRS
    ) -> Mapping[CellName, Line]:
        """Return the lines at one turn, by cell.

        Args:
            control: empty is the learning curve.
            profiles: names of those wanted; None is everybody.
        """
        at = self._lines.get((arm, control, turn), {})
        return {cell: line for cell, line in sorted(at.items()) if profiles is None or cell[0] in profiles}

    def turns(self, control: str = "", arm: str = DEFAULT_ARM) -> list[int]:
        """Return the turns with at least one measurement, ascending."""
        return sorted(turn for name, script, turn in self._lines if (name, script) == (arm, control))

    def arms(self) -> list[str]:
        """Return the arms with a learning curve, in the order of ``ARMS``."""
        found = {arm for arm, control, _ in self._lines if not control}
        return [name for name in ARMS if name in found]

    def values(self, lines: Mapping[CellName, Line], value: Value) -> list[float]:
        """Return one value per cell."""
        found = (read(line, value) for line in lines.values())
        return [one for one in found if one is not None]

    def mean(self, lines: Mapping[CellName, Line], value: Value) -> Estimate | None:
        """Return the mean over cells."""
        return estimate(self.values(lines, value))

    def difference(
        self, lines: Mapping[CellName, Line], others: Mapping[CellName, Line], value: Value
    ) -> Estimate | None:
        """Return the mean of ``lines`` minus ``others``, paired by cell; cells without a partner do not count."""
        pairs = ((read(line, value), read(others[cell], value)) for cell, line in lines.items() if cell in others)
        return estimate([one - other for one, other in pairs if one is not None and other is not None])

    def reference(self, cells: Iterable[CellName], arm: str = BASE) -> dict[CellName, Line]:
        """Return the one measurement of an arm that has no follow-ups, for every cell of the same profile."""
        at = self._lines.get((arm, "", 0), {})
        found = {(profile, seed): at.get((profile, seed), at.get((profile, 0))) for profile, seed in cells}
        return {cell: line for cell, line in found.items() if line is not None}


def read(line: Line, value: Value) -> float | None:
    """Return a field, or what a function makes of the line."""
    found: Any = value(line) if callable(value) else line.get(value)
    return None if found is None else float(found)
