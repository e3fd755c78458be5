"""Pure tensor functions: what is minimised, and what decides if there is something to learn. Imports torch only."""

from personalize.functional.divergence import forward_kl, reverse_kl, top_k_reverse_kl
from personalize.functional.reachable import reachable
from personalize.functional.reduce import per_sequence_mean, per_sequence_sum
from personalize.functional.sampled import advantages, sampled_token_loss

__all__ = [
    "advantages",
    "forward_kl",
    "per_sequence_mean",
    "per_sequence_sum",
    "reachable",
    "reverse_kl",
    "sampled_token_loss",
    "top_k_reverse_kl",
]
