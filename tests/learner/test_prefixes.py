"""Keys that one pass computes and another reads: the same numbers, and never those of other weights or tokens."""

from dataclasses import replace

import pytest
import torch

from personalize.errors import ModelError
from personalize.learner.batch import Row, collate
from personalize.learner.passes import read_prefix, reply_log_probs
from personalize.learner.prefixes import Weights, cut, load, num_shared
from personalize.model.rows import AdapterRows
from tests.model.tiny import FAMILIES, random_adapter, tiny_base

PROMPTS = ((5, 9, 11, 20, 31, 8, 7, 13, 99), (40, 41, 42))
REPLIES = ((3, 4, 5, 6), (7, 8, 9, 10, 11, 12))
TOLD = tuple((*prompt[:-1], 77, 78, prompt[-1]) for prompt in PROMPTS)


def rows_of(prompts) -> list[Row]:
    return [Row(prompt, reply, (1,) * len(reply)) for prompt, reply in zip(prompts, REPLIES, strict=True)]


def read(base, adapters):
    """Return what a pass under ``adapters`` leaves of both prompts but their last tokens."""
    plain = collate(rows_of(PROMPTS))
    cache = read_prefix(base, plain, AdapterRows.of(adapters))
    reply_log_probs(base, plain, AdapterRows.of(adapters), cache=cache)
    return [
        cut(cache, plain, row, Weights.of(base, adapter), prompt[:-1])
        for row, (adapter, prompt) in enumerate(zip(adapters, PROMPTS, strict=True))
    ]


@pytest.fixture(scope="module")
def base():
    return tiny_base()


@pytest.fixture(scope="module")
def adapters(base):
    return [random_adapter(base, 1), random_adapter(base, 2)]


@pytest.fixture(scope="module")
def told():
    return collate(rows_of(TOLD), prefix_lengths=[len(prompt) - 1 for prompt in PROMPTS])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pass_that_reads_anothers_keys_equals_one_that_reads_everything(family, told):
    """Prompts of different lengths, longer than a sliding window, an adapter in one row and the base in the other."""
    base = tiny_base(family)
    adapters = [random_adapter(base, 1), None]
    weights = [Weights.of(base, adapter) for adapter in adapters]
    live = AdapterRows.of(adapters)
    shared = reply_log_probs(base, told, live, cache=load(told, read(base, adapters), weights))
    whole = reply_log_probs(base, collate(rows_of(TOLD)), live)
    torch.testing.assert_close(shared, whole, atol=1e-5, rtol=1e-5)


def test_a_gradient_is_the_same_behind_anothers_keys(base, adapters):
    plain = collate(rows_of(PROMPTS))
    prefixes, weights = read(base, adapters), [Weights.of(base, adapter) for adapter in adapters]

    def gradients(cache):
        trained = [adapter.copy(requires_grad=True) for adapter in adapters]
        reply_log_probs(base, plain, AdapterRows.of(trained), grad=True, cache=cache).exp()[:, 0].sum().backward()
        return [tensor.grad for adapter in trained for tensor in adapter.parameters()]

    for one, two in zip(gradients(load(plain, prefixes, weights)), gradients(None), strict=True):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)


def test_the_keys_of_another_scale_are_refused(base, adapters, told):
    halved = [replace(adapter, lora_alpha=adapter.lora_alpha / 2) for adapter in adapters]
    with pytest.raises(ModelError, match="other weights"):
        load(told, read(base, adapters), [Weights.of(base, adapter) for adapter in halved])


def test_the_keys_of_another_adapter_or_base_are_refused(base, adapters, told):
    prefixes = read(base, adapters)
    others = [adapters[::-1], [None, adapters[1]], [adapters[0].copy(), adapters[1]]]
    for wrong in others:
        with pytest.raises(ModelError, match="other weights"):
            load(told, prefixes, [Weights.of(base, adapter) for adapter in wrong])
    with pytest.raises(ModelError, match="other weights"):
        load(told, prefixes, [replace(Weights.of(base, adapter), base_digest="f" * 64) for adapter in adapters])


def test_the_keys_of_other_tokens_are_refused(base, adapters):
    prefixes, weights = read(base, adapters), [Weights.of(base, adapter) for adapter in adapters]
    changed = [(6, *prompt[1:]) for prompt in TOLD]
    longer = [len(prompt) for prompt in PROMPTS]
    for prompts, lengths in ((changed, [2, 2]), (TOLD, longer)):
        with pytest.raises(ModelError, match="other tokens"):
            load(collate(rows_of(prompts), prefix_lengths=lengths), prefixes, weights)
    with pytest.raises(ModelError, match="nobody"):
        load(collate(rows_of(TOLD), prefix_lengths=[2, 2]), [None, None], weights)


def test_only_what_was_read_can_be_cut_out(base, adapters):
    plain = collate(rows_of(PROMPTS))
    cache = read_prefix(base, plain, AdapterRows.of(adapters))
    with pytest.raises(ModelError, match="does not begin"):
        cut(cache, plain, 1, Weights.of(base, adapters[0]), PROMPTS[0][:-1])


def test_an_adapter_in_training_has_no_name(base, adapters):
    with pytest.raises(ModelError, match="in training"):
        Weights.of(base, adapters[0].copy(requires_grad=True))


def test_num_shared():
    assert [num_shared(*pair) for pair in (("abc", "abd"), ("ab", "abc"), ("", "a"), ("x", "y"))] == [2, 2, 0, 0]
