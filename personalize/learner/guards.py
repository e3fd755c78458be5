"""What must hold before a new version may be published; each guard names its own rejection."""

import math
from collections.abc import Mapping

import torch

from personalize.learner.recipe import Recipe
from personalize.model.lora import LoraTensors
from personalize.types import Outcome


def delta_norm(new: LoraTensors, old: LoraTensors) -> float:
    """Frobenius norm of the change of scaling·B·A over all modules.

    Semantics:
        sqrt(Σ_modules ‖s·(B₁A₁ − B₀A₀)‖²), through r × r Gram matrices: no d_out × d_in matrix is built.
    """
    total = 0.0
    for name in new.a:
        a = torch.cat([new.a[name].detach(), old.a[name]]).double()
        b = torch.cat([new.b[name].detach() * new.scaling, -old.b[name] * old.scaling], dim=1).double()
        total += float(((b.T @ b) * (a @ a.T)).sum())
    # A NaN must stay one: max(0.0, nan) would call it zero.
    return math.sqrt(total) if total > 0 or math.isnan(total) else 0.0


def judge(metrics: Mapping[str, float], recipe: Recipe) -> Outcome:
    """Return ``applied``, or the first guard that ``metrics`` fails.

    Args:
        metrics: needs ``loss_last``, ``grad_norm``, ``delta_norm``, ``reply_kl`` and ``canary_loss``.
    """
    watched = ("loss_last", "grad_norm", "delta_norm", "reply_kl")
    if not all(math.isfinite(metrics[name]) for name in watched):
        return Outcome.REJECTED_NONFINITE
    if metrics["delta_norm"] > recipe.max_delta_norm:
        return Outcome.REJECTED_NORM
    if metrics["reply_kl"] > recipe.max_reply_kl:
        return Outcome.REJECTED_KL
    if metrics["canary_loss"] > recipe.max_canary_loss:
        return Outcome.REJECTED_CANARY
    return Outcome.APPLIED
