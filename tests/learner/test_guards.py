"""Norms by Gram matrices against the dense product; verdicts by metric."""

import math

import pytest
import torch

from personalize.learner import Recipe
from personalize.learner.guards import delta_norm, judge
from personalize.model.lora import LoraTensors
from personalize.types import Outcome


def draw(seed: int, r: int, alpha: float) -> LoraTensors:
    g = torch.Generator().manual_seed(seed)
    shapes = {"x": (7, 5), "y": (4, 9)}
    a = {name: torch.randn(r, d_in, generator=g) for name, (d_in, _) in shapes.items()}
    b = {name: torch.randn(d_out, r, generator=g) for name, (_, d_out) in shapes.items()}
    return LoraTensors(r, alpha, a, b)


def test_delta_norm_equals_the_dense_one():
    new, old = draw(1, 3, 6.0), draw(2, 3, 6.0)
    dense = sum(
        ((new.b[n] @ new.a[n] * new.scaling - old.b[n] @ old.a[n] * old.scaling) ** 2).sum().item() for n in new.a
    )
    assert delta_norm(new, old) == pytest.approx(math.sqrt(dense), rel=1e-5)
    assert delta_norm(new, new) == pytest.approx(0.0, abs=1e-5)


GOOD = {"loss_last": 0.1, "grad_norm": 1.0, "delta_norm": 1.0, "reply_kl": 1.0, "canary_loss": 0.1}


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        ({}, Outcome.APPLIED),
        ({"loss_last": math.nan}, Outcome.REJECTED_NONFINITE),
        ({"grad_norm": math.inf}, Outcome.REJECTED_NONFINITE),
        ({"delta_norm": math.nan}, Outcome.REJECTED_NONFINITE),
        ({"delta_norm": 11.0}, Outcome.REJECTED_NORM),
        ({"reply_kl": 21.0}, Outcome.REJECTED_KL),
        ({"canary_loss": 0.6}, Outcome.REJECTED_CANARY),
    ],
)
def test_verdicts(change, outcome):
    assert judge(GOOD | change, Recipe(max_delta_norm=10.0, max_reply_kl=20.0)) is outcome


def test_a_nan_norm_stays_a_nan():
    poisoned = draw(1, 3, 6.0)
    poisoned.a["x"][0, 0] = math.nan
    assert math.isnan(delta_norm(poisoned, draw(2, 3, 6.0)))
