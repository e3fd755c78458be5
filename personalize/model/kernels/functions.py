"""Shrink and expand with their gradients. Letters as in ``products``."""

import torch
from torch import Tensor

from personalize.model.kernels import products


def shrink(x: Tensor, w: Tensor, slots: Tensor, ranks: Tensor, rank: int) -> Tensor:
    """Return h [U, T, K] for x [U, T, D] and w [S, K, D]; see ``products.shrink``."""
    return _Shrink.apply(x, w, slots, ranks, rank)  # pyright: ignore[reportReturnType]


def expand(h: Tensor, w: Tensor, slots: Tensor, ranks: Tensor, rank: int) -> Tensor:
    """Return the update [U, T, D] for h [U, T, K] and w [S, K, D], in the type of ``h``; zero for rows of the base."""
    return _Expand.apply(h, w, slots, ranks, rank)  # pyright: ignore[reportReturnType]


class _Shrink(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, w: Tensor, slots: Tensor, ranks: Tensor, rank: int) -> Tensor:
        ctx.save_for_backward(x, w, slots, ranks)
        ctx.rank = rank
        return products.shrink(x, w, slots, ranks, rank)

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, w, slots, ranks = ctx.saved_tensors
        grad = grads[0].contiguous()
        grad_x = grad_w = None
        if ctx.needs_input_grad[0]:
            grad_x = torch.zeros_like(x, memory_format=torch.contiguous_format)
            products.expand(grad_x, grad, w, slots, ranks, ctx.rank)
        if ctx.needs_input_grad[1]:
            grad_w = products.weight_gradient(grad, x, slots, ranks, ctx.rank)
        return grad_x, grad_w, None, None, None


class _Expand(torch.autograd.Function):
    @staticmethod
    def forward(ctx, h: Tensor, w: Tensor, slots: Tensor, ranks: Tensor, rank: int) -> Tensor:
        ctx.save_for_backward(h, w, slots, ranks)
        ctx.rank = rank
        update = h.new_zeros(h.shape[0], h.shape[1], w.shape[2])
        products.expand(update, h, w, slots, ranks, rank)
        return update

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        h, w, slots, ranks = ctx.saved_tensors
        grad = grads[0].contiguous()
        grad_h = grad_w = None
        if ctx.needs_input_grad[0]:
            grad_h = products.shrink(grad, w, slots, ranks, ctx.rank)
        if ctx.needs_input_grad[1]:
            grad_w = products.weight_gradient(h, grad, slots, ranks, ctx.rank)
        return grad_h, grad_w, None, None, None
