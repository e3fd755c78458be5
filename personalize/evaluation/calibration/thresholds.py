"""What a follow-up must measure to enter the block, so that wishes do and idle follow-ups do not. Pure.

Two numbers are known of every turn: the gate's signal, which is how far its follow-up moves its own reply, and the
reach, which is how far it moves answers to other questions. Each may overlap where the other does not, so what counts
is which turns pass both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import floor, isfinite, log10

from personalize.evaluation.calibration.findings import Findings

MIN_POWER = 0.5
"""Numbers drawn at random seem to be told apart this well by the best threshold on them once in fifty: 18 wordings of
wishes and 12 others, as they are told."""


@dataclass(frozen=True, slots=True)
class Split:
    """A threshold on one number, in nats.

    Attributes:
        caught: share of the wishes at or above it.
        let_in: share of the idle follow-ups at or above it.
    """

    nats: float
    caught: float
    let_in: float

    @property
    def power(self) -> float:
        """1 tells all apart, 0 is chance."""
        return self.caught - self.let_in


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Both conditions together.

    Attributes:
        gate_nats: least signal, as a ``Recipe`` names it.
        reach_nats: least reach; None asks for none.
        caught: share of the wishes that pass.
        let_in: share of the idle follow-ups that pass.
        why_no_reach: for people; empty where the reach is asked for.
    """

    gate_nats: float
    reach_nats: float | None
    caught: float
    let_in: float
    why_no_reach: str = ""

    @property
    def power(self) -> float:
        """1 tells all apart, 0 is chance."""
        return self.caught - self.let_in


def thresholds(found: Findings) -> Thresholds | None:
    """Return the pair that tells wishes from idle follow-ups best; None where the signal of either is missing.

    The reach is settled first, by ``split``, and asked for only if it tells them apart by itself and the pair does so
    no worse than the signal alone. The signal's threshold is then that of the turns that the reach lets pass.
    """
    alone = split(found.gate_signals(wishes=False), found.gate_signals(wishes=True))
    if alone is None:
        return None
    every = (*found.reaches(wishes=False), *found.reaches(wishes=True))
    if not any(map(isfinite, every)):
        return _without(alone, "the context has no room for a question, a follow-up and an answer: no reach was found")
    reach = split(found.reaches(wishes=False), found.reaches(wishes=True))
    if reach is None or reach.power < MIN_POWER:
        power = 0.0 if reach is None else reach.power
        return _without(
            alone,
            "wishes reach other answers hardly further than idle follow-ups do: the best threshold tells them apart by "
            f"{power:.2f}, where 0 is chance, 1 is perfect and {MIN_POWER:g} is needed",
        )
    both = split(_passing(found, reach.nats, wishes=False), _passing(found, reach.nats, wishes=True))
    if both is None or both.power < alone.power:
        return _without(alone, f"the signal alone tells wishes from idle follow-ups better, by {alone.power:.2f}")
    return Thresholds(both.nats, reach.nats, both.caught, both.let_in)


def split(idle: Sequence[float], wishes: Sequence[float]) -> Split | None:
    """Return the threshold that tells wishes from idle follow-ups best; None where either is missing.

    Candidates lie above zero, in the middle between neighbouring numbers; of equally good ones the one in the widest
    gap. Infinity lies above every threshold.
    """
    if not idle or not wishes:
        return None
    values = sorted({0.0, *(value for value in (*idle, *wishes) if isfinite(value) and value > 0)})
    gaps = {short((low + high) / 2, 3): high - low for low, high in pairwise(values)}
    made = [Split(nats, _share_above(wishes, nats), _share_above(idle, nats)) for nats in gaps]
    return max(made, key=lambda one: (one.power, gaps[one.nats]), default=None)


def short(value: float, digits: int = 2) -> float:
    """Round to ``digits`` significant digits."""
    return round(value, digits - 1 - floor(log10(abs(value)))) if value else 0.0


def _without(alone: Split, why: str) -> Thresholds:
    return Thresholds(alone.nats, None, alone.caught, alone.let_in, why)


def _passing(found: Findings, reach_nats: float, *, wishes: bool) -> list[float]:
    """Return the signals; what the reach stops is as good as a follow-up that moves nothing."""
    turns = zip(found.gate_signals(wishes=wishes), found.reaches(wishes=wishes), strict=True)
    return [signal if reach >= reach_nats else 0.0 for signal, reach in turns]


def _share_above(values: Sequence[float], nats: float) -> float:
    return sum(value >= nats for value in values) / len(values)
