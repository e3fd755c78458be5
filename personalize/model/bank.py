"""Adapter slots at fixed addresses.

Slot 0 is the base and stays zero; every other slot holds one *version*. Slots in use are pinned by their count; the
others are let go least recently used first, and zeroed when they are. Publishing never needs a free slot: what finds
none is loaded on its first use.

The storage starts at the rank of new adapters and grows once where a higher rank arrives (up to ``max_lora_rank``), so
that nobody pays for a rank that nobody has. Growing changes the shape of a batch's products, so it may change a last
bit.

Only the thread that owns the device touches the bank; it has no locks.

Source: slots, ``max_loras`` and LRU as in vLLM's LoRA worker; versions with use counts as in SGLang.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from personalize.errors import AdapterCorrupt
from personalize.model.base import BaseModel
from personalize.model.folder import check_rank
from personalize.model.lora import LoraTensors
from personalize.model.rows import AdapterRows
from personalize.model.slot_rows import SlotRows
from personalize.model.stacks import IndexedRows, KeptRows, Stacks, indices
from personalize.types import AdapterRef

BASE_SLOT = 0


@dataclass(slots=True)
class _Slot:
    name: str | None = None
    count: int = 0
    used_at: int = 0
    doomed: bool = False


class AdapterBank:
    """Slots for ``num_slots`` adapter versions of one base model."""

    def __init__(self, base: BaseModel, *, num_slots: int, max_rank: int = 64, rank: int = 8):
        self.base = base
        self.num_slots = num_slots
        self.max_rank = max_rank
        self.rank = min(rank, max_rank)
        self._slots = [_Slot() for _ in range(num_slots + 1)]
        self._by_name: dict[str, int] = {}
        self._clock = 0
        self._store(Stacks(base, num_slots + 1, self.rank))

    # -- versions ---------------------------------------------------------------------------------------------

    def acquire(self, name: str) -> int | None:
        """Return the slot of the version and count one use, in one step; None where it is not loaded."""
        index = self._by_name.get(name)
        if index is not None:
            slot = self._slots[index]
            slot.count += 1
            self._touch(slot)
        return index

    def release(self, index: int) -> None:
        """Give back one use; the last one frees a version that was unloaded meanwhile."""
        if index == BASE_SLOT:
            return
        slot = self._slots[index]
        assert slot.count > 0, f"slot {index} was released more often than acquired"
        slot.count -= 1
        if slot.doomed and not slot.count:
            self._free(index)

    def load(self, ref: AdapterRef, tensors: LoraTensors) -> int | None:
        """Copy a version into a spare slot and return it, unused yet; None where every slot is pinned.

        A version that is there already stays as it is: a name is never used for other bytes.

        Raises:
            AdapterMismatch: its rank is above the bank's limit.
            AdapterCorrupt: a value is not finite.
        """
        if (index := self._by_name.get(ref.name)) is not None:
            self._slots[index].doomed = False
            return index
        check_rank(tensors.r, self.max_rank, ref.name)
        if not tensors.is_finite():
            raise AdapterCorrupt(f"{ref.name}: a weight is NaN or infinite")
        index = self._spare()
        if index is None:
            return None
        self._grow(tensors.r)
        try:
            self._kept.forget(index)
            self._stacks.write(index, tensors)
        except BaseException:
            self._clear(index)
            raise
        slot = self._slots[index]
        slot.name, slot.doomed = ref.name, False
        self._by_name[ref.name] = index
        self._touch(slot)
        return index

    def unload(self, name: str) -> None:
        """Let go of a version: now where nobody uses it, else with its last use."""
        index = self._by_name.get(name)
        if index is None:
            return
        if self._slots[index].count:
            self._slots[index].doomed = True
        else:
            self._free(index)

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def has_spare(self) -> bool:
        """Whether ``load`` would find a slot."""
        return any(not slot.count for slot in self._slots[1:])

    def names(self) -> tuple[str, ...]:
        """Return the loaded versions."""
        return tuple(self._by_name)

    def num_used(self) -> int:
        """Return how many slots are pinned by running sequences."""
        return sum(slot.count > 0 for slot in self._slots)

    def tensors(self, index: int) -> dict[str, tuple[Tensor, Tensor]]:
        """Return views of a slot's A and B by module, B with the scaling folded in."""
        return {name: (a[index], b[index].T) for name, (a, b) in self._stacks.modules.items()}

    # -- rows -------------------------------------------------------------------------------------------------

    def rows(self, slots: Sequence[int]) -> AdapterRows | SlotRows | None:
        """Return the rows of a forward in which batch row n uses ``slots[n]``; None where all are the base.

        The kernels read every slot in place. Without them one sequence does; several are gathered.
        """
        if not any(slots):
            return None
        if self.base.has_kernels:
            return self._stacks.indexed(torch.tensor(indices(slots), device=self.base.device))
        if len(slots) == 1:
            return self._stacks.slice(slots[0], slots[0] + 1)
        return self._stacks.gather(slots)

    def decode_rows(self, slots: Sequence[int]) -> AdapterRows | SlotRows | None:
        """Return the same as ``rows``, and for as many rows the same object: a recorded step reads it again.

        Only what changed is written: the index of slots for the kernels, else a contiguous copy of the slots. Growing
        storage makes another object.
        """
        return self._kept.rows(slots) if any(slots) else None

    # -- storage ----------------------------------------------------------------------------------------------

    def _grow(self, rank: int) -> None:
        if rank > self.rank:
            grown = Stacks(self.base, self.num_slots + 1, rank)
            grown.copy_all(self._stacks)
            self.rank = rank
            left, kept = self._stacks, self._kept
            self._store(grown)
            left.clear_all()
            kept.clear_all()

    def _store(self, stacks: Stacks) -> None:
        self._stacks = stacks
        self._kept = IndexedRows(stacks) if self.base.has_kernels else KeptRows(self.base, stacks)

    def _spare(self) -> int | None:
        unused = [index for index in range(1, self.num_slots + 1) if not self._slots[index].count]
        if not unused:
            return None
        index = min(unused, key=lambda i: (self._slots[i].name is not None, self._slots[i].used_at))
        if self._slots[index].name is not None:
            self._free(index)
        return index

    def _free(self, index: int) -> None:
        slot = self._slots[index]
        assert not slot.count, f"slot {index} is still in use"
        self._by_name.pop(slot.name or "", None)
        slot.name, slot.doomed = None, False
        self._clear(index)

    def _clear(self, index: int) -> None:
        self._stacks.clear(index)
        self._kept.forget(index)

    def _touch(self, slot: _Slot) -> None:
        self._clock += 1
        slot.used_at = self._clock
