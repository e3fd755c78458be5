"""Canaries: the base's own replies, and how many of their tokens an adapter finds implausible."""

import torch

from personalize.config import LoraSettings
from personalize.learner.canaries import QUESTIONS, TOKENS_EACH, Canaries
from personalize.model.folder import new_adapter
from personalize.model.lora import LoraTensors
from personalize.model.rows import AdapterRows

FALL = 2.0


def adapter(base, scale: float, seed: int = 1) -> LoraTensors:
    """Return an adapter whose B is random with this standard deviation."""
    tensors = new_adapter(base, LoraSettings(), seed=seed).copy()
    generator = torch.Generator().manual_seed(seed)
    for b in tensors.b.values():
        b.copy_(scale * torch.randn(b.shape, generator=generator))
    return tensors


def plain_log_probs(base, row, tensors: LoraTensors | None) -> torch.Tensor:
    """One forward over prompt and reply, as the judge."""
    ids = torch.tensor([[*row.prompt_ids, *row.completion_ids]])
    rows = None if tensors is None else AdapterRows.of([tensors], [0])
    with torch.no_grad():
        log_probs = base.head(base.hidden(ids, rows=rows)).log_softmax(-1)[0]
    start = len(row.prompt_ids)
    return torch.stack([log_probs[start + i - 1, token] for i, token in enumerate(row.completion_ids)])


def test_replies_are_the_bases_own_greedy_ones(base):
    canaries = Canaries.of(base)
    assert len(canaries.rows) == len(QUESTIONS)
    assert sum(len(row.completion_ids) for row in canaries.rows) <= TOKENS_EACH * len(QUESTIONS) <= 64
    for row in canaries.rows:
        ids = torch.tensor([[*row.prompt_ids, *row.completion_ids]])
        greedy = base.head(base.hidden(ids))[0].argmax(-1)[len(row.prompt_ids) - 1 : -1]
        assert tuple(greedy.tolist()) == row.completion_ids


def test_lost_share_equals_one_plain_forward_each(base, monkeypatch):
    monkeypatch.setattr("personalize.learner.canaries.FALL_NATS", FALL)  # a random model is sure of nothing
    canaries = Canaries.of(base)
    adapters = [adapter(base, 0.0), adapter(base, 0.3, seed=2), adapter(base, 3.0, seed=3)]
    shares = canaries.lost(base, adapters)
    for tensors, share in zip(adapters, shares, strict=True):
        before = torch.cat([plain_log_probs(base, row, None) for row in canaries.rows])
        after = torch.cat([plain_log_probs(base, row, tensors) for row in canaries.rows])
        assert share == (before - after > FALL).float().mean().item()
    assert shares[0] == 0.0
    assert shares[2] > 0.5


def test_what_is_not_finite_has_lost_everything(base):
    poisoned = adapter(base, 0.1)
    next(iter(poisoned.b.values())).fill_(torch.nan)
    healthy = adapter(base, 0.0)
    assert Canaries.of(base).lost(base, [poisoned, healthy]) == [1.0, 0.0]
