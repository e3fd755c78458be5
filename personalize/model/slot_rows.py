"""Adapter rows that read slots by index, through the kernels.

Shape letters: U rows (or groups of as many rows each), N batch rows, T tokens, S slots, R rank places of a module,
G modules that share an input, I inputs, O outputs.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from personalize.errors import ModelError
from personalize.model.rows import AdapterRows


@dataclass(frozen=True, slots=True, eq=False)
class SharedShrink:
    """The A of modules that are given the same input.

    Attributes:
        names: the modules, in the order in which the model runs them.
        a: [S, G * R, I], the modules' places one behind the other.
    """

    names: tuple[str, ...]
    a: Tensor


class SlotRows:
    """Batch row n reads the slot ``slots[n // (N / U)]``: ``y[n] += x[n] @ A[slot].T @ B[slot]``.

    Slots of any rank up to R, base rows where the slot is negative. The first module of a ``SharedShrink`` computes the
    shrink for all of them; the others take theirs if they are given the very same tensor, else they compute it again.
    """

    __slots__ = ("_expands", "_last", "_ranks", "_shrinks", "_slots")

    def __init__(self, shrinks: Iterable[SharedShrink], expands: Mapping[str, Tensor], slots: Tensor, ranks: Tensor):
        """Args: expands: module -> scaling times B [S, R, O]; slots: [U]; ranks: places in use of each slot [S]."""
        self._shrinks = {name: shared for shared in shrinks for name in shared.names}
        self._expands, self._slots, self._ranks = expands, slots, ranks
        self._last: tuple[SharedShrink, Tensor, int, Tensor] | None = None

    @classmethod
    def over(cls, rows: AdapterRows) -> "SlotRows":
        """Return the same rows for the kernels; gradients reach the stacks of ``rows``."""
        stacks = rows.modules
        shrink = next(iter(stacks.values()))[0]
        num, widest = shrink.shape[0], max(expand.shape[1] for _, expand in stacks.values())
        return cls(
            [SharedShrink((name,), shrink.mT) for name, (shrink, _) in stacks.items()],
            {name: expand for name, (_, expand) in stacks.items()},
            torch.arange(num, device=shrink.device),
            torch.full((num,), widest, device=shrink.device),
        )

    def add_to(self, name: str, x: Tensor, y: Tensor) -> Tensor:
        """Return y [N, T, O] (or [N, O]) plus every row's update for x [N, T, I]; without gradients y is changed.

        Raises:
            ModelError: the rows cannot be shared out over the adapters.
        """
        b = self._expands.get(name)
        if b is None:
            return y
        num_rows = len(self._slots)
        if x.shape[0] % num_rows:
            raise ModelError(f"{name}: {x.shape[0]} rows cannot be shared out over {num_rows} adapters")
        from personalize.model.kernels import functions, products

        h = self._shrunk(name, x)
        words = (self._slots, self._ranks, b.shape[1])
        if torch.is_grad_enabled():
            return y + functions.expand(h, b, *words).view(y.shape).to(y.dtype)
        products.expand(y.view(num_rows, -1, y.shape[-1]), h, b, *words)
        return y

    def _shrunk(self, name: str, x: Tensor) -> Tensor:
        """Return h [U, T, R] of the module."""
        from personalize.model.kernels import functions

        shared = self._shrinks[name]
        rank = shared.a.shape[1] // len(shared.names)
        last = self._last
        if last is None or last[0] is not shared or last[1] is not x or last[2] != x._version:
            h = functions.shrink(_grouped(x, len(self._slots)), shared.a, self._slots, self._ranks, rank)
            last = (shared, x, x._version, h)
        self._last = None if name == shared.names[-1] else last  # nobody comes after the last one
        return last[3].unflatten(-1, (len(shared.names), rank))[:, :, shared.names.index(name)]


def _grouped(x: Tensor, num_rows: int) -> Tensor:
    grouped = x.reshape(num_rows, -1, x.shape[-1])
    return grouped if grouped.stride(-1) == 1 else grouped.contiguous()
