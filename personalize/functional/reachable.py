"""How far a reply is one that the teacher could have given.

Shape letters: N positions, V vocabulary.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional


def reachable(
    teacher_NV: Float[Tensor, "N V"],
    target_N: Int[Tensor, " N"],
    sequence_N: Int[Tensor, " N"],
    tolerance: float,
) -> Float[Tensor, " N"]:
    """Weight of every position, 0 to 1: 1 while the reply so far is what the teacher might say, less behind a break.

    A teacher that is told "bullets, please" and then made to read prose has left what it knows: its predictions behind
    the first break say little, and learning them does harm.

    Args:
        teacher_NV: log-probabilities.
        target_N: the token that the reply has there.
        sequence_N: which reply a position belongs to, 0 … S − 1, ascending.
        tolerance: a token breaks when the teacher's first choice is more than this many times as likely.

    Semantics:
        w_i = Π_{j < i, same reply} min(1, tolerance · p_j(y_j) / max_v p_j(v)), without gradient.
    """
    chosen_N = teacher_NV.gather(-1, target_N[:, None])[:, 0]
    step_N = (chosen_N - teacher_NV.max(dim=-1).values + math.log(tolerance)).clamp(max=0.0).detach()
    lengths = torch.unique_consecutive(sequence_N, return_counts=True)[1].tolist()
    # Each reply by itself: what stands in another one, and be it not a number, changes nothing here.
    before = [functional.pad(reply[:-1], (1, 0)).cumsum(0) for reply in step_N.split(lengths)] if lengths else [step_N]
    return torch.cat(before).exp()
