"""Drawing the next token of every sequence, independently of its neighbours.

A draw takes one number u in [0, 1) from the sequence's own generator and inverts the cumulative distribution: the
smallest token k with F(k) > u. The number does not depend on the device or on who else is in the batch.
"""

from collections.abc import Sequence as Items

import torch
from torch import Tensor

from personalize.engine.sequences import Sequence
from personalize.types import SamplingParams

NOT_FINITE = -1
"""Returned instead of a token where a row's logits hold NaN or +inf."""

_GREEDY_BELOW = 1e-5


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
    scaled = (logits - logits.max(dim=-1, keepdim=True).values) / temperatures[:, None]
    filtered = [n for n, p in enumerate(params) if p.top_k or p.top_p < 1.0]
    if filtered:
        scaled = _filter(scaled, filtered, [params[n] for n in filtered])
    # fp64: over a large vocabulary an fp32 sum would round small probabilities away.
    cumulative = scaled.double().softmax(dim=-1).cumsum(dim=-1)
    total = cumulative[:, -1:]
    u = total.new_tensor([[min(sequence.rng.random(), 1.0 - 1e-12)] for sequence in sequences])
    tokens = torch.searchsorted(cumulative, u * total, right=True)
    return torch.where(total.isfinite(), tokens.clamp_max(logits.shape[-1] - 1), NOT_FINITE)[:, 0].tolist()


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
