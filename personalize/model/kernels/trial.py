"""Whether the kernels give on this device what plain products give: tried once, before anything is served."""

import logging
from functools import cache

import torch
from torch import Tensor

from personalize.model.kernels import products

log = logging.getLogger(__name__)

_LIMITS = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 4e-3}
"""Largest error over the largest value."""
_RANK, _WIDTH, _MODULES = 8, 200, 2
_NUM_TOKENS = (1, 20)


@cache
def agrees(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether all three kernels compile and are exact within ``dtype``; say so in the log where not."""
    if dtype not in _LIMITS:
        return False
    try:
        error = largest_error(device, dtype)
    except Exception as failure:  # a compiler's refusal, a missing compiler, too little shared memory
        log.warning("the LoRA kernels do not run on %s, plain products are used: %s", device, failure)
        return False
    if not error <= _LIMITS[dtype]:  # a NaN must fail as well
        log.warning("the LoRA kernels are wrong on %s by %.2g, plain products are used", device, error)
        return False
    return True


def largest_error(device: torch.device, dtype: torch.dtype) -> float:
    """Return the largest error of the kernels on random numbers, over the largest value."""
    errors = [error for num_tokens in _NUM_TOKENS for error in _errors(device, dtype, num_tokens)]
    return float(torch.stack(errors).max())  # of a NaN Python's own max would make nothing


def _errors(device: torch.device, dtype: torch.dtype, num_tokens: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(num_tokens)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device, dtype)

    places = _MODULES * _RANK
    x, h, w = draw(4, num_tokens, _WIDTH), draw(4, num_tokens, places), draw(3, places, _WIDTH)
    slots = torch.tensor([2, -1, 0, 2], device=device)
    ranks = torch.tensor([_RANK, _RANK, 5], device=device)
    y = draw(4, num_tokens, _WIDTH)
    one = torch.nn.functional.one_hot(slots + 1, 4)[:, 1:].double()
    used = (torch.arange(places, device=device) % _RANK < ranks[:, None]).double()[:, :, None]
    weights = torch.einsum("us,skd->ukd", one, w.double() * used)
    pairs = [
        (products.shrink(x, w, slots, ranks, _RANK), torch.einsum("utd,ukd->utk", x.double(), weights)),
        (
            products.weight_gradient(h, x, slots, ranks, _RANK),
            torch.einsum("us,utk,utd->skd", one, h.double(), x.double()) * used,
        ),
        (y, y.double() + torch.einsum("utk,ukd->utd", h.double(), weights)),
    ]
    products.expand(y, h, w, slots, ranks, _RANK)
    return [(given - wanted).abs().max() / wanted.abs().max() for given, wanted in pairs]
