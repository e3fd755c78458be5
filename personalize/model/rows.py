"""What one forward pass reads of the adapters: which row uses which weights.

Shape letters: U adapters (or one copy per row), N batch rows, R rank, I inputs, O outputs.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from personalize.errors import ModelError
from personalize.model.lora import LoraTensors


class AdapterRows:
    """For every target module a shrink [U, I, R] (A transposed) and an expand [U, R, O] (scaling times B transposed).

    Semantics: ``y[n] += x[n] @ shrink[u] @ expand[u]`` with ``u = n // (N / U)``: rows of one adapter lie side by side
    and every adapter has as many rows as the others. ``AdapterRows.of`` brings any assignment into that form.
    """

    __slots__ = ("modules",)

    def __init__(self, modules: Mapping[str, tuple[Tensor, Tensor]]):
        self.modules = dict(modules)

    def __bool__(self) -> bool:
        return bool(self.modules)

    @classmethod
    def of(cls, adapters: Sequence[LoraTensors | None], index: Sequence[int] | None = None) -> "AdapterRows":
        """Return rows where batch row n uses ``adapters[index[n]]``, or the base where that is None or -1.

        Exact under autograd: A and B of the adapters may require a gradient. The stacks belong to one graph; after a
        backward build new rows. Ranks and target modules may differ: what is missing counts as zero.

        Args:
            adapters: ``LoraTensors`` or None (the base model).
            index: adapter of each row; None means one row per adapter.
        """
        index = list(range(len(adapters))) if index is None else list(index)
        lanes = _lanes(index)
        chosen = [None if lane < 0 else adapters[lane] for lane in lanes]
        names = dict.fromkeys(name for adapter in chosen if adapter is not None for name in adapter.a)
        return cls({name: _stack(name, chosen) for name in names})

    def take(self, rows: Sequence[int], num_rows: int) -> "AdapterRows":
        """Return what some rows of a batch of ``num_rows`` read, for a batch of them alone; exact under autograd.

        Args:
            rows: their places, ascending.
        """
        num_adapters = next((shrink.shape[0] for shrink, _ in self.modules.values()), 0)
        if num_adapters <= 1 or len(rows) == num_rows:  # none, one for all, or all of them
            return self
        lanes = _lanes([row * num_adapters // num_rows for row in rows])
        return AdapterRows({name: (shrink[lanes], expand[lanes]) for name, (shrink, expand) in self.modules.items()})

    def add_to(self, name: str, x: Tensor, y: Tensor) -> Tensor:
        """Return y [N, T, O] (or [N, O]) plus every row's update for x [N, T, I]; without gradients y is changed.

        Two batched products over contiguous stacks. Their form depends on the batch's shape only.

        Raises:
            ModelError: the rows cannot be shared out over the adapters.
        """
        stacks = self.modules.get(name)
        if stacks is None:
            return y
        shrink, expand = stacks
        num_adapters = shrink.shape[0]
        if x.ndim == 3 and x.shape[0] == num_adapters and y.dtype == expand.dtype and not torch.is_grad_enabled():
            return y.baddbmm_(torch.bmm(x, shrink), expand)  # one adapter per row, no copy: the decode step
        if x.shape[0] % num_adapters:
            raise ModelError(f"{name}: {x.shape[0]} rows cannot be shared out over {num_adapters} adapters")
        grouped = x.reshape(num_adapters, -1, x.shape[-1]).to(shrink.dtype)
        update = torch.bmm(torch.bmm(grouped, shrink), expand)
        return y + update.view(y.shape).to(y.dtype)


def _lanes(index: list[int]) -> list[int]:
    """Return one entry per group of neighbouring rows where all groups are equally long, else one per row."""
    groups: list[list[int]] = []
    for adapter in index:
        if groups and groups[-1][0] == adapter:
            groups[-1].append(adapter)
        else:
            groups.append([adapter])
    even = len({len(group) for group in groups}) == 1
    return [group[0] for group in groups] if even else index


def _stack(name: str, adapters: Sequence[LoraTensors | None]) -> tuple[Tensor, Tensor]:
    having = [adapter if adapter is not None and name in adapter.a else None for adapter in adapters]
    some = next(adapter for adapter in having if adapter is not None)
    rank = max(adapter.r for adapter in having if adapter is not None)
    zero_a = some.a[name].new_zeros(rank, some.a[name].shape[1])
    zero_b = some.b[name].new_zeros(rank, some.b[name].shape[0])
    rows_a = [zero_a if one is None else _pad(one.a[name], rank) for one in having]
    rows_b = [zero_b if one is None else _pad(one.b[name].T * one.scaling, rank) for one in having]
    return torch.stack(rows_a).transpose(1, 2), torch.stack(rows_b)


def _pad(tensor: Tensor, rank: int) -> Tensor:
    missing = rank - tensor.shape[0]
    return torch.cat([tensor, tensor.new_zeros(missing, tensor.shape[1])]) if missing else tensor
