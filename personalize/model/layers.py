"""A linear layer whose rows each add their own low-rank update.

    y_n = W x_n + B_u (A_u x_n),   u = adapter of row n,   scaling folded into B

Shrink (A) and expand (B) are two batched products over contiguous stacks: one group of rows per adapter, any number
of rows in a group. The form depends on the batch's shape only, never on whose adapters are in it, so neighbours cannot
change a row's last bit. Rows of the base model meet zero stacks and add exactly zero.

Between two layers a pass may be paused, forward and backward: whoever owns the model runs another forward there.

Source: Punica (arXiv 2310.18547) for shrink and expand.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from personalize.errors import ModelError
from personalize.model.rows import AdapterRows


class ActiveRows:
    """Where the layers of one model look for the rows of the forward that is running.

    Attributes:
        rows: None is the base.
        pause: called between two layers; None where nobody wants to be.
    """

    __slots__ = ("pause", "rows")

    def __init__(self):
        self.rows: AdapterRows | None = None
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
        stacks = None if rows is None else rows.modules.get(self.name)
        return self.active.pausable(y if stacks is None else self._add_update(x, y, *stacks))

    def _add_update(self, x: Tensor, y: Tensor, shrink: Tensor, expand: Tensor) -> Tensor:
        num_adapters = shrink.shape[0]
        if x.ndim == 3 and x.shape[0] == num_adapters and y.dtype == expand.dtype and not torch.is_grad_enabled():
            return y.baddbmm_(torch.bmm(x, shrink), expand)  # one adapter per row, no copy: the decode step
        if x.shape[0] % num_adapters:
            raise ModelError(f"{self.name}: {x.shape[0]} rows cannot be shared out over {num_adapters} adapters")
        grouped = x.reshape(num_adapters, -1, self.in_features).to(shrink.dtype)
        update = torch.bmm(torch.bmm(grouped, shrink), expand)
        return y + update.view(y.shape).to(y.dtype)


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
