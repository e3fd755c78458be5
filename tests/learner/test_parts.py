"""Batches cut into parts with less padding: the cheapest cut by hand, and the same numbers and gradients as uncut."""

from itertools import combinations, pairwise

import pytest
import torch

from personalize.learner import parts as module
from personalize.learner.batch import Row, collate
from personalize.learner.parts import cheapest, parts, pass_tokens
from personalize.learner.passes import reply_log_probs
from personalize.model.rows import AdapterRows
from tests.learner.test_passes import random_adapter

LENGTHS = [(30, 9), (2, 8), (31, 2), (3, 9), (0, 1), (29, 8), (2, 1)]


def rows() -> list[Row]:
    """Return rows of these lengths; every second token of a reply counts."""
    return [
        Row(
            tuple(range(1, prefix + 2)), tuple(range(7, 7 + window)), tuple(place % 2 for place in range(1, window + 1))
        )
        for prefix, window in LENGTHS
    ]


def cost(groups, weight: int, each: int) -> int:
    """Return what some groups cost, padding included."""
    return sum(
        len(group) * (max(LENGTHS[row][0] for row in group) + weight * max(LENGTHS[row][1] for row in group)) + each
        for group in groups
    )


def every_cut(order: list[int]):
    for count in range(len(order)):
        for places in combinations(range(1, len(order)), count):
            edges = [0, *places, len(order)]
            yield [order[start:stop] for start, stop in pairwise(edges)]


@pytest.mark.parametrize("weight", [1, 3])
@pytest.mark.parametrize("each", [0, 5, 40, 10_000])
def test_no_cut_of_either_order_is_cheaper(weight, each):
    orders = [sorted(range(len(LENGTHS)), key=lambda row: LENGTHS[row][::way]) for way in (1, -1)]
    lowest = min(cost(groups, weight, each) for order in orders for groups in every_cut(order))
    found = cheapest(LENGTHS, weight, each)
    assert cost(found, weight, each) == lowest
    assert sorted(row for group in found for row in group) == list(range(len(LENGTHS)))
    assert all(list(group) == sorted(group) for group in found)


def test_where_a_pass_is_dear_nothing_is_cut(base):
    batch = collate(rows())
    assert len(cheapest(LENGTHS, 1, 10_000)) == 1 < len(cheapest(LENGTHS, 1, 0))
    assert pass_tokens(base) > 10_000, "a tiny model's passes cost more than their tokens"
    (whole,) = parts(base, batch)
    assert whole.batch is batch and whole.trained.tolist() == list(range(len(batch.row)))


@pytest.mark.parametrize("users", ["each his own", "one for all", "some none"])
def test_numbers_and_gradients_are_those_of_the_whole(base, monkeypatch, users):
    found = []
    for tokens in (10_000, 0):
        monkeypatch.setattr(module, "pass_tokens", lambda base, tokens=tokens: tokens)
        adapters, index = adapters_of(base, users)
        batch = collate(rows())
        assert (len(parts(base, batch, grad=True)) > 1) is (tokens == 0)
        log_probs = reply_log_probs(base, batch, AdapterRows.of(adapters, index), grad=True)
        log_probs.gather(-1, batch.target_ids[:, None]).square().sum().backward()
        found.append((log_probs.detach(), [p.grad for one in adapters for p in (one.parameters() if one else ())]))
    (whole, whole_grads), (cut, cut_grads) = found
    torch.testing.assert_close(cut, whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(cut_grads, whole_grads, atol=1e-3, rtol=1e-4)
    assert any(float(grad.abs().max()) > 0 for grad in whole_grads)


def adapters_of(base, users: str):
    count = 1 if users == "one for all" else 7 if users == "each his own" else 2
    adapters = [random_adapter(base, seed).copy(requires_grad=True) for seed in range(count)]
    index = [-1, 0, 1, 1, -1, 0, 0] if users == "some none" else [place % count for place in range(7)]
    return adapters, index


def test_the_base_alone_is_cut_too(base, monkeypatch):
    batch = collate(rows())
    whole = reply_log_probs(base, batch, None)
    monkeypatch.setattr(module, "pass_tokens", lambda base: 0)
    assert len(parts(base, batch)) > 1
    torch.testing.assert_close(reply_log_probs(base, batch, None), whole, atol=1e-5, rtol=1e-5)


def test_a_wider_model_is_cut_sooner(base):
    class Wide:
        device, targets = base.device, {name: (8 * i, 8 * o) for name, (i, o) in base.targets.items()}

    assert pass_tokens(Wide()) == pytest.approx(pass_tokens(base) / 64, rel=0.01)  # pyright: ignore
