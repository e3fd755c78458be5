"""How certain the numbers are: bootstrap over cells, collapses, areas, times."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

MIN_CELLS = 8
"""An interval from fewer cells is printed, and said to be one."""
NUM_DRAWS = 10_000
_SEED = 0
_Z95 = 1.959964
ARRIVED, COLLAPSED = 0.9, 0.85


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over cells with its 95 % bootstrap interval.

    Attributes:
        n: cells.
    """

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def estimate(values: Sequence[float]) -> Estimate | None:
    """Return the mean of one value per cell, resampling cells; None without cells. Paired: pass differences."""
    if not values:
        return None
    array = np.asarray(values, dtype=float)
    draws = np.random.default_rng(_SEED).integers(len(array), size=(NUM_DRAWS, len(array)))
    low, high = np.quantile(array[draws].mean(axis=1), (0.025, 0.975))
    return Estimate(float(array.mean()), float(low), float(high), len(array))


def upper_bound(share: float, n: int) -> float:
    """Return the upper end of the 95 % Wilson interval of a share of ``n`` replies."""
    centre = share + _Z95**2 / (2 * n)
    spread = _Z95 * math.sqrt(share * (1 - share) / n + _Z95**2 / (4 * n * n))
    return (centre + spread) / (1 + _Z95**2 / n)


@dataclass(frozen=True, slots=True)
class Fate:
    """How a long life went: ``arrived`` at two checkpoints of at least 0.9, ``collapsed`` afterwards."""

    arrived: bool
    collapsed: bool


def fate(rates: Sequence[tuple[float, int]]) -> Fate:
    """Return the fate of a life.

    A collapse is two consecutive checkpoints whose upper bound is below 0.85, counted from the second checkpoint of at
    least 0.9 on.

    Args:
        rates: preference rate and number of replies at every checkpoint, in order.
    """
    high = [place for place, (rate, _) in enumerate(rates) if rate >= ARRIVED]
    if len(high) < 2:
        return Fate(False, False)
    low = [upper_bound(rate, n) < COLLAPSED for rate, n in rates[high[1] :]]
    return Fate(True, any(one and other for one, other in pairwise(low)))


def area(curve: Sequence[tuple[int, float]]) -> float | None:
    """Return the mean height of a curve of (turn, rate), by trapezoids; None for fewer than two points."""
    if len(curve) < 2:
        return None
    pairs = list(pairwise(curve))
    whole = sum((after - before) * (low + high) / 2 for (before, low), (after, high) in pairs)
    return whole / (curve[-1][0] - curve[0][0])


def turns_to(level: float, curve: Sequence[tuple[int, float]]) -> int | None:
    """Return the first checkpoint at which the rate is at least ``level``; None if there is none."""
    return next((turn for turn, rate in curve if rate >= level), None)
