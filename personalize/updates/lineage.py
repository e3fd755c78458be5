"""Which logged steps a version is made of.

Every version that an update made is one step: its number names the step, its update names the turn. A version's lineage
is written into its state when it is published, so it is known when the versions before it have been pruned.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from adapters_store import Store
from adapters_store.errors import NotFound
from adapters_store.types import Version

KEY = "lineage"
"""Name of a lineage in a version's state."""
REBASED_FROM = "rebased_from"
"""Metric of a rebased version: number of the other base's head that it was rebuilt from."""
MAX_RANGES = 512
"""A state has 16 KiB; a range of steps takes some 15 bytes of it."""


@dataclass(frozen=True, slots=True)
class Lineage:
    """Logged steps, one after the other.

    Attributes:
        steps: numbers of the versions that updates made, ascending: the order in which they were learnt.
        root: number of the version that the first step began with; None where the adapter was new.
        whole: an imported version is the root. False where it is one of which nothing is known any more.
    """

    steps: tuple[int, ...] = ()
    root: int | None = None
    whole: bool = True

    def and_then(self, number: int) -> "Lineage":
        """Return the lineage with one more step."""
        return replace(self, steps=(*self.steps, number))

    def without(self, number: int) -> "Lineage":
        return replace(self, steps=tuple(step for step in self.steps if step != number))

    def begins(self, other: "Lineage") -> bool:
        """Tell whether ``other`` is this one, or this one and further steps."""
        same_root = (self.root, self.whole) == (other.root, other.whole)
        return same_root and other.steps[: len(self.steps)] == self.steps

    def to_json(self) -> dict[str, Any]:
        """Return plain values of bounded length: the oldest of many ranges are forgotten."""
        ranges = _ranges(self.steps)
        if len(ranges) > MAX_RANGES:
            lost, ranges = ranges[-MAX_RANGES - 1], ranges[-MAX_RANGES:]
            return {"steps": ranges, "root": lost[1], "whole": False}
        return {"steps": ranges, "root": self.root, "whole": self.whole}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Lineage":
        steps = (number for first, last in value["steps"] for number in range(first, last + 1))
        return cls(tuple(steps), value["root"], value["whole"])


def lineage_of(store: Store, version: Version | None) -> Lineage:
    """Return what a version is made of; None is a new adapter.

    Of a version that was published before lineages were written down it is known as far back as the rows of the
    versions that it was made from are kept.
    """
    if version is None:
        return Lineage()
    if (written := version.state.get(KEY)) is not None:
        before = Lineage.from_json(written)
    elif version.origin == "import":
        before = Lineage(root=version.number)
    else:
        before = _lineage_before(store, version)
    return before.and_then(version.number) if version.origin == "update" else before


def _lineage_before(store: Store, version: Version) -> Lineage:
    source = version.metrics.get(REBASED_FROM)
    number = version.trained_from if source is None else int(source)
    if number is None:
        return Lineage()
    try:
        return lineage_of(store, store.version(version.user_id, number))
    except NotFound:
        return Lineage(root=number, whole=False)


def _ranges(steps: Iterable[int]) -> list[list[int]]:
    """Return runs of successive numbers as [first, last]."""
    numbers = list(steps)
    starts = [place for place, (one, two) in enumerate(pairwise(numbers), start=1) if two != one + 1]
    places = [0, *starts, len(numbers)] if numbers else []
    return [[numbers[first], numbers[end - 1]] for first, end in pairwise(places)]
