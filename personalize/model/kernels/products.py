"""The three products of a low-rank update, as Triton kernels.

Shape letters: U batch rows, T tokens of a row, S slots, K rank places of a slot, D width, R places of one module.

    shrink            h[u, t, k]  = sum_d x[u, t, d] w[s, k, d]
    expand            y[u, t, d] += sum_k h[u, t, k] w[s, k, d]                s = slots[u]
    weight gradient   g[s, k, d]  = sum of h[u, t, k] x[u, t, d] over the rows u with slots[u] = s and their tokens t

Several modules that share an input share a shrink: their places lie one module behind the other, K = R times their
number, and ``ranks[s]`` of each R places are in use; the others are never read. A row whose slot is negative is the
base: it reads no weights, its h is zero and its y is left alone.

A program works for one row (or one slot) and loads that slot's weights only, so whatever lies in another slot, NaN
included, cannot reach it. Sums run in one order without atomics, and the size of a block follows from T, K and D, so a
row's bits do not depend on who else is in the batch. Sums are in fp32, and fp32 factors are not rounded.

Only built-in operations are used, none of Triton's own library: the interpreter could not run what was compiled before
it was asked for.

Source: Punica's segmented gather products (arXiv 2310.18547).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton import knobs

_WIDE = bool(knobs.runtime.interpret)
"""Widen the factors of a product first: Triton's interpreter would take the bits of a bf16 for a whole number."""


@triton.jit
def _add_product(a, b, sums, WIDE: tl.constexpr):
    """Return sums + a b, summed in fp32; fp32 factors are not rounded to a shorter type."""
    if WIDE:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, sums, input_precision="ieee")


@triton.jit
def _shrink(
    x, w, h, slots, ranks, num_tokens, num_places, width, rank, x_row, x_token, w_slot, w_place, h_row, h_token,
    BLOCK_T: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    t = (tl.program_id(1) * BLOCK_T + tl.arange(0, BLOCK_T)).to(tl.int64)
    k = tl.program_id(2) * BLOCK_K + tl.arange(0, BLOCK_K)
    slot = tl.load(slots + row).to(tl.int64)
    own_rank = tl.load(ranks + slot, mask=slot >= 0, other=0)
    is_token = t < num_tokens
    is_place = (k < num_places) & (k % rank < own_rank)
    stop = tl.where(own_rank > 0, width, 0)  # a base row's h is zero without reading anything
    sums = tl.full((BLOCK_T, BLOCK_K), 0.0, tl.float32)
    for start in range(0, stop, BLOCK_D):
        d = start + tl.arange(0, BLOCK_D)
        x_td = tl.load(
            x + row * x_row + t[:, None] * x_token + d[None, :],
            mask=is_token[:, None] & (d < width)[None, :], other=0.0,
        )  # fmt: skip
        w_dk = tl.load(
            w + slot * w_slot + k[None, :] * w_place + d[:, None],
            mask=is_place[None, :] & (d < width)[:, None], other=0.0,
        )  # fmt: skip
        sums = _add_product(x_td.to(w_dk.dtype), w_dk, sums, WIDE)
    tl.store(
        h + row * h_row + t[:, None] * h_token + k[None, :], sums.to(h.dtype.element_ty),
        mask=is_token[:, None] & (k < num_places)[None, :],
    )  # fmt: skip


@triton.jit
def _expand(
    h, w, y, slots, ranks, num_tokens, num_places, width, rank, h_row, h_token, w_slot, w_place, y_row, y_token,
    BLOCK_T: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    t = (tl.program_id(1) * BLOCK_T + tl.arange(0, BLOCK_T)).to(tl.int64)
    d = tl.program_id(2) * BLOCK_D + tl.arange(0, BLOCK_D)
    slot = tl.load(slots + row).to(tl.int64)
    own_rank = tl.load(ranks + slot, mask=slot >= 0, other=0)
    if own_rank > 0:
        is_token = t < num_tokens
        sums = tl.full((BLOCK_T, BLOCK_D), 0.0, tl.float32)
        for start in range(0, num_places, BLOCK_K):
            k = start + tl.arange(0, BLOCK_K)
            is_place = (k < num_places) & (k % rank < own_rank)
            h_tk = tl.load(
                h + row * h_row + t[:, None] * h_token + k[None, :],
                mask=is_token[:, None] & is_place[None, :], other=0.0,
            )  # fmt: skip
            w_kd = tl.load(
                w + slot * w_slot + k[:, None] * w_place + d[None, :],
                mask=is_place[:, None] & (d < width)[None, :], other=0.0,
            )  # fmt: skip
            sums = _add_product(h_tk.to(w_kd.dtype), w_kd, sums, WIDE)
        here = y + row * y_row + t[:, None] * y_token + d[None, :]
        is_here = is_token[:, None] & (d < width)[None, :]
        before = tl.load(here, mask=is_here, other=0.0).to(tl.float32)
        tl.store(here, (before + sums).to(y.dtype.element_ty), mask=is_here)


@triton.jit
def _weight_gradient(
    h, x, g, slots, ranks, num_rows, num_tokens, num_places, width, rank, h_row, h_token, x_row, x_token,
    g_slot, g_place, BLOCK_T: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    slot = tl.program_id(0).to(tl.int64)
    k = tl.program_id(1) * BLOCK_K + tl.arange(0, BLOCK_K)
    d = tl.program_id(2) * BLOCK_D + tl.arange(0, BLOCK_D)
    is_place = (k < num_places) & (k % rank < tl.load(ranks + slot))
    sums = tl.full((BLOCK_K, BLOCK_D), 0.0, tl.float32)
    for row in range(0, num_rows):
        if tl.load(slots + row) == slot:
            for start in range(0, num_tokens, BLOCK_T):
                t = (start + tl.arange(0, BLOCK_T)).to(tl.int64)
                h_kt = tl.load(
                    h + t[None, :] * h_token + k[:, None],
                    mask=is_place[:, None] & (t < num_tokens)[None, :], other=0.0,
                )  # fmt: skip
                x_td = tl.load(
                    x + t[:, None] * x_token + d[None, :],
                    mask=(t < num_tokens)[:, None] & (d < width)[None, :], other=0.0,
                )  # fmt: skip
                sums = _add_product(h_kt, x_td.to(h_kt.dtype), sums, WIDE)
        h += h_row
        x += x_row
    is_written = (k < num_places)[:, None] & (d < width)[None, :]
    sums = tl.where(is_place[:, None], sums, 0.0)
    tl.store(g + slot * g_slot + k[:, None] * g_place + d[None, :], sums.to(g.dtype.element_ty), mask=is_written)


def shrink(x: Tensor, w: Tensor, slots: Tensor, ranks: Tensor, rank: int) -> Tensor:
    """Return h [U, T, K] in the type of ``w``.

    Args:
        x: [U, T, D].
        w: [S, K, D].
        slots: the slot of each row [U], negative for the base.
        ranks: places in use of each slot [S].
        rank: R, the places of one module; K is a multiple of it.
    """
    _check(x, w, slots, rank)
    num_rows, num_tokens, width = x.shape
    num_places = w.shape[1]
    h = torch.empty(num_rows, num_tokens, num_places, dtype=w.dtype, device=x.device)
    block_t, block_k, block_d = _blocks(num_tokens, num_places)
    if h.numel():
        _shrink[num_rows, triton.cdiv(num_tokens, block_t), triton.cdiv(num_places, block_k)](
            x, w, h, slots, ranks, num_tokens, num_places, width, rank, *_strides(x), *_strides(w), *_strides(h),
            BLOCK_T=block_t, BLOCK_K=block_k, BLOCK_D=block_d, WIDE=_WIDE, num_stages=2,  # pyright: ignore[reportCallIssue]
        )  # fmt: skip
    return h


def expand(y: Tensor, h: Tensor, w: Tensor, slots: Tensor, ranks: Tensor, rank: int) -> None:
    """Add the product of ``h`` [U, T, K] and each row's ``w`` [S, K, D] to ``y`` [U, T, D], in place."""
    _check(h, w.mT, slots, rank, y)
    num_rows, num_tokens, width = y.shape
    num_places = w.shape[1]
    block_t, block_k, block_d = _blocks(num_tokens, num_places)
    if y.numel():
        _expand[num_rows, triton.cdiv(num_tokens, block_t), triton.cdiv(width, block_d)](
            h, w, y, slots, ranks, num_tokens, num_places, width, rank, *_strides(h), *_strides(w), *_strides(y),
            BLOCK_T=block_t, BLOCK_K=block_k, BLOCK_D=block_d, WIDE=_WIDE, num_stages=2,  # pyright: ignore[reportCallIssue]
        )  # fmt: skip


def weight_gradient(h: Tensor, x: Tensor, slots: Tensor, ranks: Tensor, rank: int) -> Tensor:
    """Return g [S, K, D] in the type of ``h``, for h [U, T, K] and x [U, T, D]; S is the length of ``ranks``."""
    num_rows, num_tokens, width = x.shape
    num_places = h.shape[2]
    g = torch.empty(len(ranks), num_places, width, dtype=h.dtype, device=h.device)
    _check(x, g, slots, rank)
    block_t, block_k, block_d = _blocks(num_tokens, num_places)
    if g.numel():
        _weight_gradient[len(ranks), triton.cdiv(num_places, block_k), triton.cdiv(width, block_d)](
            h, x, g, slots, ranks, num_rows, num_tokens, num_places, width, rank,
            *_strides(h), *_strides(x), *_strides(g),
            BLOCK_T=block_t, BLOCK_K=block_k, BLOCK_D=block_d, WIDE=_WIDE, num_stages=2,  # pyright: ignore[reportCallIssue]
        )  # fmt: skip
    return g


def _blocks(num_tokens: int, num_places: int) -> tuple[int, int, int]:
    """Return the block sizes for T, K and D; 16 is the least that a product of blocks takes.

    A decode step has one token per row and little work per slot: small blocks of places make more programs of it.
    """
    if num_tokens <= 16:
        return 16, 16, 128
    return 64, min(64, max(16, int(triton.next_power_of_2(num_places)))), 64


def _strides(tensor: Tensor) -> tuple[int, int]:
    assert tensor.shape[-1] < 2 or tensor.stride(-1) == 1, f"the last axis is not dense: strides {tensor.stride()}"
    return tensor.stride(0), tensor.stride(1)


def _check(x: Tensor, w: Tensor, slots: Tensor, rank: int, y: Tensor | None = None) -> None:
    """Assert that [U, T, D] and [S, K, D] belong together; a kernel would read beyond their ends."""
    assert x.ndim == w.ndim == 3 and x.shape[2] == w.shape[2], f"{tuple(x.shape)} does not fit {tuple(w.shape)}"
    assert slots.shape == x.shape[:1], f"{len(slots)} slots for {len(x)} rows"
    places = w.shape[1] if y is None else w.shape[2]
    assert places % rank == 0, f"{places} places are no multiple of {rank}"
    if y is not None:
        assert y.shape == (*x.shape[:2], w.shape[1]), f"{tuple(y.shape)} is not the shape of the product"
