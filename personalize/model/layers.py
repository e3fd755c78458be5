"""A linear layer whose rows each add their own low-rank update.

    y_n = W x_n + B_u (A_u x_n),   u = adapter of row n,   scaling folded into B

How shrink (A) and expand (B) are computed is the rows' own affair: batched products over contiguous stacks
(``AdapterRows``) or kernels that read slots where they lie (``SlotRows``). The form depends on the batch's shape only,
never on whose adapters are in it, so neighbours cannot change a row's last bit. Rows of the base add exactly zero.

Between two layers a pass may be paused, forward and backward: whoever owns the model runs another forward there.

Source: Punica (arXiv 2310.18547) for shrink and expand.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional


class Rows(Protocol):
    """What one forward reads of the adapters."""

    def add_to(self, name: str, x: Tensor, y: Tensor) -> Tensor:
        """Return y [N, T, O], the base's output of the layer ``name`` for x [N, T, I], plus every row's own update."""
        ...


class ActiveRows:
    """Where the layers of one model look for the rows of the forward that is running.

    Attributes:
        rows: None is the base.
        pause: called between two layers; None where nobody wants to be.
    """

    __slots__ = ("pause", "rows")

    def __init__(self):
        self.rows: Rows | None = None
        self.pause: Callable[[], None] | None = None

    def pausable(self, y: Tensor) -> Tensor:
        """Pause behind a layer; return its output y, whose gradient will pause the backward pass."""
        if self.pause is not None:
            self._pause()
            if y.requires_grad:
                y.register_hook(self._pause)
        return y

    def _pause(self, *_: Tensor) -> None:
        """Forwards inside the pause are not paused themselves, and leave the rows as they were."""
        pause, rows = self.pause, self.rows
        if pause is None:
            return
        self.pause = self.rows = None
        try:
            with torch.no_grad():
                pause()
        finally:
            self.pause, self.rows = pause, rows


class MultiLoraLinear(nn.Linear):
    """The frozen linear layer it replaces, plus every row's own update.

    It takes over the parameters themselves, so the state dict of the model keeps its keys.
    """

    def __init__(self, linear: nn.Linear, name: str, active: ActiveRows):
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.name = name
        self.active = active

    def forward(self, x: Tensor) -> Tensor:
        """Return y [N, T, O] (or [N, O]) for x [N, T, I] (or [N, I])."""
        y = functional.linear(x, self.weight, self.bias)
        rows = self.active.rows
        return self.active.pausable(y if rows is None else rows.add_to(self.name, x, y))


def replace_linears(module: nn.Module, prefix: str, skip: set[nn.Module], active: ActiveRows) -> dict[str, nn.Linear]:
    """Replace every plain ``nn.Linear`` below ``module`` in place; return the new layers by full name.

    Args:
        prefix: name of ``module`` inside the whole model, or "".
        skip: layers to leave alone (the output head).
    """
    replaced: dict[str, nn.Linear] = {}
    for parent_name, parent in list(module.named_modules()):
        for child_name, child in list(parent.named_children()):
            # Exactly nn.Linear: a subclass may compute something else (quantised weights, fused kernels).
            if type(child) is nn.Linear and child not in skip:
                name = ".".join(part for part in (prefix, parent_name, child_name) if part)
                replaced[name] = MultiLoraLinear(child, name, active)
                setattr(parent, child_name, replaced[name])
    return replaced
