"""Greedy replies against one plain forward per token."""

import math

import pytest
import torch

from personalize.learner.greedy import greedy_replies
from personalize.model.rows import AdapterRows
from personalize.types import Window
from tests.learner.test_canaries import adapter

PROMPTS = [(5, 6, 7, 8, 9), (11, 12), (13, 14, 15, 16, 17, 18, 19)]


def plainly(base, prompt, tensors, count):
    """Read the whole text anew for every token."""
    ids, entropies = [], []
    for _ in range(count):
        rows = None if tensors is None else AdapterRows.of([tensors], [0])
        with torch.no_grad():
            probabilities = base.head(base.hidden(torch.tensor([[*prompt, *ids]]), rows=rows))[0, -1].softmax(-1)
        ids.append(int(probabilities.argmax()))
        entropies.append(float(-(probabilities * probabilities.log()).sum()))
        if ids[-1] in base.renderer.end_ids:
            break
    return ids, entropies


def finish(work):
    windows = 0
    while True:
        try:
            assert next(work) == Window()
            windows += 1
        except StopIteration as end:
            return end.value, windows


@pytest.mark.parametrize("scale", [None, 0.3])
def test_replies_equal_one_forward_per_token(base, scale, monkeypatch):
    tensors = None if scale is None else adapter(base, scale)
    first = plainly(base, PROMPTS[0], tensors, 12)[0]
    monkeypatch.setattr(type(base.renderer), "end_ids", frozenset({first[3]}))  # so that one ends before the others
    replies, windows = finish(greedy_replies(base, PROMPTS, tensors, 12))
    for prompt, reply in zip(PROMPTS, replies, strict=True):
        ids, entropies = plainly(base, prompt, tensors, 12)
        assert reply.prompt_ids == prompt and reply.token_ids == ids
        assert reply.entropies == pytest.approx(entropies, abs=1e-4)
        assert reply.ended == (ids[-1] == first[3])
    assert replies[0].ended
    assert windows == max(len(reply.token_ids) for reply in replies)


def test_what_is_not_finite_ends_there(base):
    poisoned = adapter(base, 0.1)
    next(iter(poisoned.b.values())).fill_(torch.nan)
    replies, windows = finish(greedy_replies(base, PROMPTS, poisoned, 12))
    assert windows == 1
    assert all(len(reply.token_ids) == 1 and math.isnan(reply.entropies[0]) for reply in replies)


def test_a_reply_ends_with_the_context(base):
    long = tuple(n % 60 + 1 for n in range(base.max_model_len - 3))
    (reply,), _ = finish(greedy_replies(base, [long], None, 12))
    assert len(reply.token_ids) <= 3
