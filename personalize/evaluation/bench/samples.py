"""Sides that are measured in turn, and the ratios between them.

Whatever the machine does meanwhile then hits all sides alike, so a ratio is taken within each round, and the median is
taken over the rounds.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import torch

Side = Callable[[], float]
"""Sets a side up, untimed, and returns what was measured of it in ms."""


@dataclass(frozen=True, slots=True)
class Samples:
    """What was measured of every side, one value per round, in ms."""

    rounds: Mapping[str, Sequence[float]]

    @property
    def num_rounds(self) -> int:
        return len(next(iter(self.rounds.values())))

    def median(self, side: str) -> float:
        return median(self.rounds[side])

    def medians(self) -> dict[str, float]:
        """Return the median of every side in ms."""
        return {side: median(values) for side, values in self.rounds.items()}

    def ratio(self, side: str, base: str) -> float:
        """Return how many times ``base`` one takes for ``side``: the median of the rounds' own ratios."""
        return median(mine / theirs for mine, theirs in zip(self.rounds[side], self.rounds[base], strict=True))


def in_turn(sides: Mapping[str, Side], rounds: int) -> Samples:
    """Measure every side once per round; each round begins with another side."""
    names = list(sides)
    found: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in [*names[first:], *names[:first]]:
            found[name].append(sides[name]())
    return Samples(found)


def elapsed_ms(work: Callable[[], object], device: torch.device) -> float:
    """Return the wall time of ``work``, with everything that it put into the device's queue."""
    wait_for(device)
    began = time.perf_counter()
    work()
    wait_for(device)
    return (time.perf_counter() - began) * 1000


def wait_for(device: torch.device) -> None:
    """Wait for the device's queue; a CPU has none."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
