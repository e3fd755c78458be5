"""Distances between the reply's distribution with and without hindsight, one number per position.

Every function takes *log-probabilities* (log-softmax in fp32), student first; the teacher gets no gradient.

Shape letters: N positions, V vocabulary.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def forward_kl(student_NV: Float[Tensor, "N V"], teacher_NV: Float[Tensor, "N V"]) -> Float[Tensor, " N"]:
    """KL(teacher ‖ student): the student is pulled over everything that the teacher may say.

    Semantics:
        out[n] = Σ_v exp(teacher[n, v]) · (teacher[n, v] − student[n, v])

    Source: arXiv 2601.20802 (SDPO), α = 0.
    """
    teacher_NV = teacher_NV.detach()
    return _expectation(teacher_NV, teacher_NV - student_NV)


def reverse_kl(student_NV: Float[Tensor, "N V"], teacher_NV: Float[Tensor, "N V"]) -> Float[Tensor, " N"]:
    """KL(student ‖ teacher): the student leaves what the teacher would not say.

    Semantics:
        out[n] = Σ_v exp(student[n, v]) · (student[n, v] − teacher[n, v])

    Source: arXiv 2603.12273, equation 2.
    """
    return _expectation(student_NV, student_NV - teacher_NV.detach())


def top_k_reverse_kl(student_NV: Float[Tensor, "N V"], teacher_NV: Float[Tensor, "N V"], k: int) -> Float[Tensor, " N"]:
    """Reverse KL on the student's k likeliest tokens and one bucket for all the others.

    The bucket keeps the sum a divergence (never negative); without it, mass that leaves the k tokens would count as
    gained. For k = V it is ``reverse_kl``.

    Args:
        k: size of the support, 1 to V.

    Source: arXiv 2601.20802, student top-k with tail.
    """
    if not 1 <= k <= student_NV.shape[-1]:
        raise ValueError(f"k = {k} is not allowed; allowed: 1 to {student_NV.shape[-1]}")
    if k == student_NV.shape[-1]:
        return reverse_kl(student_NV, teacher_NV)
    top_NK, index_NK = student_NV.topk(k, dim=-1)
    return reverse_kl(_with_tail(top_NK), _with_tail(teacher_NV.detach().gather(-1, index_NK)))


def _expectation(log_p_NV: Tensor, value_NV: Tensor) -> Tensor:
    # A token of probability exactly zero adds nothing, even where its log-ratio is infinite: 0 · ∞ is 0 here.
    return torch.where(log_p_NV == -torch.inf, 0.0, log_p_NV.exp() * value_NV).sum(-1)


def _with_tail(log_p_NK: Tensor) -> Tensor:
    # The clamp keeps log(1 − mass) finite where rounding makes the k tokens hold all of it.
    mass_N1 = log_p_NK.logsumexp(-1, keepdim=True).clamp(max=-1e-7)
    return torch.cat([log_p_NK, torch.log(-torch.expm1(mass_N1))], dim=-1)
