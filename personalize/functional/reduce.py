"""From positions to replies: every reply counts once, however long it is.

Shape letters: N positions, S sequences.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def per_sequence_sum(value_N: Float[Tensor, " N"], sequence_N: Int[Tensor, " N"]) -> Float[Tensor, " S"]:
    """Sum over the positions of each sequence; ``sequence_N`` holds 0 … S − 1, each at least once."""
    out_S = torch.zeros(int(sequence_N.max()) + 1, dtype=value_N.dtype, device=value_N.device)
    return out_S.index_add(0, sequence_N, value_N)


def per_sequence_mean(value_N: Float[Tensor, " N"], sequence_N: Int[Tensor, " N"]) -> Float[Tensor, " S"]:
    """Mean over the positions of each sequence; ``sequence_N`` holds 0 … S − 1, each at least once."""
    return per_sequence_sum(value_N, sequence_N) / per_sequence_sum(torch.ones_like(value_N), sequence_N)
