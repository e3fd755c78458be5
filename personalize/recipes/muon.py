"""Muon in fp32, for all hidden matrices of one shape at once.

Momentum, then the nearest semi-orthogonal matrix by a quintic Newton–Schulz iteration, which needs matrix products
only. ``torch.optim.Muon`` iterates in bf16, which is many times slower than fp32 on CPUs without bf16 units; this one
stacks matrices of equal shape and iterates on the stack.

Source: Keller Jordan, "Muon: An optimizer for hidden layers in neural networks" (2024).
"""

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor

_A, _B, _C = 3.4445, -4.7750, 2.0315
_STEPS = 5


def orthogonalized(stack: Tensor) -> Tensor:
    """Return U Vᵀ, nearly, for every matrix U S Vᵀ of ``stack`` [N, rows, columns]."""
    tall = stack.shape[1] > stack.shape[2]
    x = stack.mT if tall else stack
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(_STEPS):
        gram = x @ x.mT
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Step every matrix along its orthogonalized Nesterov momentum; an update has RMS about 0.2 · lr."""

    def __init__(
        self, matrices: Iterable[Tensor], lr: float, *, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Move all matrices once."""
        for group in self.param_groups:
            for matrices in _by_shape(group["params"]):
                self._move(matrices, **{key: group[key] for key in ("lr", "momentum", "weight_decay")})

    def _move(self, matrices: list[Tensor], lr: float, momentum: float, weight_decay: float) -> None:
        rows, columns = matrices[0].shape
        updates = orthogonalized(torch.stack([self._nesterov(matrix, momentum) for matrix in matrices]))
        scale = 0.2 * max(rows, columns) ** 0.5
        for matrix, update in zip(matrices, updates, strict=True):
            matrix.mul_(1 - lr * weight_decay).add_(update, alpha=-lr * scale)

    def _nesterov(self, matrix: Tensor, momentum: float) -> Tensor:
        state = self.state[matrix]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(matrix)
        gradient = torch.zeros_like(matrix) if matrix.grad is None else matrix.grad
        state["momentum"].lerp_(gradient, 1 - momentum)
        return gradient.lerp(state["momentum"], momentum)


def _by_shape(matrices: Iterable[Tensor]) -> list[list[Tensor]]:
    groups: dict[torch.Size, list[Tensor]] = defaultdict(list)
    for matrix in matrices:
        groups[matrix.shape].append(matrix)
    return list(groups.values())
