"""The paper's own objective: a policy gradient on the tokens that were sampled.

Shape letters: N positions.
"""

from jaxtyping import Float, Int
from torch import Tensor

from personalize.functional.reduce import per_sequence_mean


def advantages(
    student_N: Float[Tensor, " N"],
    teacher_N: Float[Tensor, " N"],
    sequence_N: Int[Tensor, " N"],
    *,
    centred: bool = False,
    clip: float | None = None,
) -> Float[Tensor, " N"]:
    """What hindsight says of every sampled token: A = log π(y_i | x, o, y_<i) − log π(y_i | x, y_<i), without gradient.

    Args:
        student_N, teacher_N: log-probability of the sampled token without and with the follow-up.
        sequence_N: which reply a position belongs to, 0 … S − 1.
        centred: subtract the reply's mean (the paper's online runs; leaves relative credit only).
        clip: bound on |A|, applied last; None for none.

    Source: arXiv 2603.12273, equation 1; centring as in its published online trainer.
    """
    value_N = (teacher_N - student_N).detach()
    if centred:
        value_N = value_N - per_sequence_mean(value_N, sequence_N)[sequence_N]
    return value_N if clip is None else value_N.clamp(-clip, clip)


def sampled_token_loss(student_N: Float[Tensor, " N"], advantage_N: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
    """−A · log π(y_i | x, y_<i): its gradient is the sampled-token estimate of the reverse KL's.

    Source: arXiv 2603.12273, equation 3.
    """
    return -advantage_N.detach() * student_N
