"""Stacked adapters: the storage behind slots, and what a decode batch reads: a copy, or the slots by index."""

from collections.abc import Sequence

import torch
from torch import Tensor

from personalize.model.base import BaseModel
from personalize.model.lora import LoraTensors
from personalize.model.rows import AdapterRows
from personalize.model.slot_rows import SharedShrink, SlotRows


class Stacks:
    """Per target module A [num, R, d_in] and scaling times transposed B [num, R, d_out], zero at first.

    The layout is the one in which a step's shrink and expand are fastest; the A of modules that share an input lie
    side by side where one kernel shrinks for all of them.
    """

    def __init__(self, base: BaseModel, num: int, rank: int):
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(num, *shape, dtype=base.dtype, device=base.device)

        self.num, self.rank = num, rank
        self.ranks = torch.zeros(num, dtype=torch.int32, device=base.device)
        self.modules: dict[str, tuple[Tensor, Tensor]] = {}
        self.shrinks: list[SharedShrink] = []
        for names in base.sharing:
            a = zeros(len(names), rank, base.targets[names[0]][0])
            self.shrinks.append(SharedShrink(names, a.flatten(1, 2)))
            self.modules |= {name: (a[:, n], zeros(rank, base.targets[name][1])) for n, name in enumerate(names)}

    def write(self, index: int, tensors: LoraTensors) -> None:
        """Copy an adapter into the place ``index``, which is zero."""
        for name, (a, b) in self.modules.items():
            if name in tensors.a:
                a[index, : tensors.r].copy_(tensors.a[name].detach())
                b[index, : tensors.r].copy_(tensors.b[name].detach().T * tensors.scaling)
        self.ranks[index] = tensors.r

    def clear(self, index: int) -> None:
        self.ranks[index] = 0
        for a, b in self.modules.values():
            a[index].zero_()
            b[index].zero_()

    def clear_all(self) -> None:
        """Zero everything: storage that is left behind may be reachable for a while, through a recorded step."""
        self.ranks.zero_()
        for a, b in self.modules.values():
            a.zero_()
            b.zero_()

    def copy(self, index: int, source: "Stacks", source_index: int) -> None:
        """Copy one adapter of ``source``, of the same rank."""
        for name, (a, b) in self.modules.items():
            source_a, source_b = source.modules[name]
            a[index].copy_(source_a[source_index])
            b[index].copy_(source_b[source_index])
        self.ranks[index] = source.ranks[source_index]

    def copy_all(self, source: "Stacks") -> None:
        """Copy every adapter of ``source``, whose rank and number may be smaller."""
        for name, (a, b) in self.modules.items():
            for mine, theirs in zip((a, b), source.modules[name], strict=True):
                mine[: source.num, : source.rank].copy_(theirs)
        self.ranks[: source.num].copy_(source.ranks)

    def slice(self, start: int, stop: int) -> AdapterRows:
        """Return rows that read the places start … stop-1 where they lie."""
        return AdapterRows({name: (a[start:stop].mT, b[start:stop]) for name, (a, b) in self.modules.items()})

    def indexed(self, slots: Tensor) -> SlotRows:
        """Return rows that read the places ``slots`` [U] where they lie, a negative one for the base."""
        return SlotRows(self.shrinks, {name: b for name, (_, b) in self.modules.items()}, slots, self.ranks)

    def gather(self, indices: Sequence[int]) -> AdapterRows:
        """Return rows that read copies of these places."""
        device = next(iter(self.modules.values()))[0].device
        chosen = torch.tensor(indices, device=device)
        return AdapterRows(
            {name: (a.index_select(0, chosen).mT, b.index_select(0, chosen)) for name, (a, b) in self.modules.items()}
        )


class KeptRows:
    """A contiguous copy of the slots that a decode batch reads: row n holds the slot ``held[n]``.

    Batches change by a row or two from step to step, and only those are copied again. Slot 0 is all zero.
    Slots of a batch seldom lie side by side, so reading them in place would save nothing where memory is shortest.
    """

    def __init__(self, base: BaseModel, slots: Stacks):
        self._base, self._slots = base, slots
        self.stacks = Stacks(base, 0, slots.rank)
        self._held: list[int] = []
        self._views: dict[int, AdapterRows] = {}

    def rows(self, slots: Sequence[int]) -> AdapterRows:
        """Return the rows of a batch whose row n uses ``slots[n]``."""
        self._reserve(len(slots))
        for row, slot in enumerate(slots):
            if self._held[row] != slot:
                self.stacks.copy(row, self._slots, slot)
                self._held[row] = slot
        if len(slots) not in self._views:
            self._views[len(slots)] = self.stacks.slice(0, len(slots))
        return self._views[len(slots)]

    def forget(self, slot: int) -> None:
        """Zero the copies of a slot whose content changes."""
        for row, held in enumerate(self._held):
            if held == slot:
                self.stacks.clear(row)
                self._held[row] = 0

    def clear_all(self) -> None:
        """Zero all copies; they are not to be read again."""
        self.stacks.clear_all()

    def _reserve(self, num_rows: int) -> None:
        if num_rows > len(self._held):
            self.stacks.clear_all()
            self.stacks = Stacks(self._base, num_rows, self._slots.rank)
            self._held = [0] * num_rows
            self._views = {}


class IndexedRows:
    """Decode batches that read the slots themselves, through the kernels.

    Batches of one size always have the same rows, at the same addresses: a recorded step reads what was written last.
    """

    def __init__(self, slots: Stacks):
        self._slots = slots
        self._held: dict[int, list[int]] = {}
        self._views: dict[int, tuple[Tensor, SlotRows]] = {}

    def rows(self, slots: Sequence[int]) -> SlotRows:
        """Return the rows of a batch whose row n uses ``slots[n]``."""
        num, index = len(slots), indices(slots)
        if num not in self._views:
            places = torch.empty(num, dtype=torch.int64, device=self._slots.ranks.device)
            self._views[num] = (places, self._slots.indexed(places))
        places, view = self._views[num]
        if self._held.get(num) != index:
            places.copy_(torch.tensor(index))
            self._held[num] = index
        return view

    def forget(self, slot: int) -> None:
        """Nothing is kept: the slot is read where it lies."""

    def clear_all(self) -> None:
        """Nothing is kept."""


def indices(slots: Sequence[int]) -> list[int]:
    """Return the slots as the kernels want them: slot 0, the base, is negative."""
    return [slot or -1 for slot in slots]
