"""An adapter's tensors: what is not finite is found."""

import math

import pytest
import torch

from personalize.model.lora import initial_lora


@pytest.mark.parametrize("values", [[math.nan], [math.inf], [math.inf, -math.inf]])
def test_what_is_not_finite_is_found_wherever_it_is(values):
    tensors = initial_lora({"a": (6, 5), "b": (7, 4)}, r=3, lora_alpha=6, seed=0)
    assert tensors.is_finite()
    for place, value in enumerate(values):
        tensors.b["b"][place, 1] = value
    assert not tensors.is_finite()


def test_a_sum_that_overflows_is_still_finite():
    tensors = initial_lora({"a": (6, 5)}, r=3, lora_alpha=6, seed=0)
    tensors.a["a"].fill_(3e38)
    assert not torch.isfinite(tensors.a["a"].sum()) and tensors.is_finite()
