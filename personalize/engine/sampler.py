"""Drawing the next token of every sequence, independently of its neighbours.

A draw takes one number u in [0, 1) from the sequence's own generator and inverts the cumulative distribution: the
smallest token k with F(k) > u. The number does not depend on the device or on who else is in the batch.
"""

from collections.abc import Sequence as Items

import torch
from torch import Tensor
from torch.nn import functional

from personalize.engine.sequences import Sequence
from personalize.types import SamplingParams

NOT_FINITE = -1
"""Returned instead of a token where a row's logits hold NaN or +inf."""

_GREEDY_BELOW = 1e-5
_BLOCK = 64


def sample(logits: Tensor, sequences: Items[Sequence]) -> list[int]:
    """Return the next token of each sequence, or ``NOT_FINITE``.

    Args:
        logits: [N, V], row n for ``sequences[n]``.
    """
    drawn = [n for n, sequence in enumerate(sequences) if sequence.request.sampling.temperature >= _GREEDY_BELOW]
    if not drawn:
        return _greedy(logits)
    if len(drawn) == len(sequences):
        return _draw(logits, sequences)
    tokens = _greedy(logits)
    chosen = torch.tensor(drawn, device=logits.device)
    for n, token in zip(drawn, _draw(logits[chosen], [sequences[n] for n in drawn]), strict=True):
        tokens[n] = token
    return tokens


def _greedy(logits: Tensor) -> list[int]:
    best = logits.max(dim=-1)  # NaN counts as the largest value
    return torch.where(best.values < torch.inf, best.indices, NOT_FINITE).tolist()


def _draw(logits: Tensor, sequences: Items[Sequence]) -> list[int]:
    params = [sequence.request.sampling for sequence in sequences]
    temperatures = logits.new_tensor([p.temperature for p in params], dtype=torch.float32)
    logits = logits.float()
    # Subtract first: a small temperature must not overflow.
    scaled = logits - logits.max(dim=-1, keepdim=True).values
    if any(p.temperature != 1.0 for p in params):
        scaled /= temperatures[:, None]
    filtered = [n for n, p in enumerate(params) if p.top_k or p.top_p < 1.0]
    if filtered:
        scaled = _filter(scaled, filtered, [params[n] for n in filtered])
    draws = [[min(sequence.rng.random(), 1.0 - 1e-12)] for sequence in sequences]
    return _invert(scaled.exp_(), draws).tolist()


def _invert(weights: Tensor, draws: list[list[float]]) -> Tensor:
    """Return [N], the smallest k of each row with F(k) > u, or ``NOT_FINITE``.

    First the block of the vocabulary is found, then the token in it, so that the whole distribution is summed once and
    never written down. Sums are fp64: over a large vocabulary fp32 would round small probabilities away.

    Args:
        weights: [N, V], not normalised.
        draws: u, one per row.
    """
    missing = -weights.shape[-1] % _BLOCK
    blocks = functional.pad(weights, (0, missing)).view(weights.shape[0], -1, _BLOCK)
    cumulative = blocks.sum(dim=-1, dtype=torch.float64).cumsum(dim=-1)
    total = cumulative[:, -1:]
    target = total.new_tensor(draws) * total
    block = torch.searchsorted(cumulative, target, right=True).clamp_max(cumulative.shape[1] - 1)
    before = torch.where(block > 0, cumulative.gather(1, (block - 1).clamp_min(0)), 0.0)
    within = blocks.gather(1, block[:, :, None].expand(-1, -1, _BLOCK))[:, 0].cumsum(dim=-1, dtype=torch.float64)
    # The same sum in another order may be smaller by a last bit; a token that cannot be drawn must not be.
    rest = torch.minimum(target - before, torch.nextafter(within[:, -1:], torch.zeros_like(target)))
    place = torch.searchsorted(within, rest, right=True).clamp_max(_BLOCK - 1)
    return torch.where(total.isfinite(), block * _BLOCK + place, NOT_FINITE)[:, 0]


def _filter(scaled: Tensor, rows: list[int], params: list[SamplingParams]) -> Tensor:
    """Set to -inf what top-k and then top-p leave out in ``rows``; the likeliest token always stays."""
    index = torch.tensor(rows, device=scaled.device)
    values, order = scaled[index].sort(dim=-1, descending=True, stable=True)
    vocabulary = values.shape[-1]
    top_k = torch.tensor([min(p.top_k or vocabulary, vocabulary) for p in params], device=scaled.device)
    values = values.masked_fill(torch.arange(vocabulary, device=scaled.device) >= top_k[:, None], -torch.inf)
    top_p = torch.tensor([[p.top_p] for p in params], device=scaled.device, dtype=torch.float64)
    mass = values.double().softmax(dim=-1)
    before = mass.cumsum(dim=-1) - mass
    # The first token has no mass before it, but rounding could say otherwise.
    cut = (before >= top_p) & (top_p < 1.0)
    cut[:, 0] = False
    values = values.masked_fill(cut, -torch.inf)
    result = scaled.clone()
    result[index] = torch.empty_like(values).scatter_(-1, order, values)
    return result
