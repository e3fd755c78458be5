"""Neighbours cannot change one bit of my logits at a fixed batch shape."""

import pytest
import torch

from personalize.engine.fingerprint import fingerprints
from personalize.engine.sequences import Phase
from tests.engine.stage import collect, drain, engine_for, make_ref, prompt, request
from tests.model.tiny import random_adapter, tiny_base


def watched_logits(family, *, my_adapter, others, poison=None, base=None):
    """Decode 10 tokens in row 1 of a batch of four; return the logits of every step, bit for bit.

    Args:
        others: (seed of prompt, adapter seed or None) of the three neighbours, whose prompts are equally long.
        poison: called with the engine before every step.
    """
    base = base or tiny_base(family)
    engine = engine_for(base, end_ids=(), max_num_seqs=4, max_num_batched_tokens=4096)
    refs = {}
    for seed in {my_adapter, *(adapter for _, adapter in others)} - {None}:
        refs[seed] = make_ref(seed)
        engine.prepare(refs[seed], random_adapter(base, seed))
    everyone = [others[0], (7, my_adapter), *others[1:]]
    sequences = [  # four users, so that they get their rows in this order
        engine.add(request(prompt(9, p), refs.get(a), user_id=f"user-{place}", max_tokens=12))
        for place, (p, a) in enumerate(everyone)
    ]
    seen = []
    real_head = base.head
    base.head = lambda hidden: seen.append(real_head(hidden)) or seen[-1]
    results: dict = {}
    for _ in range(11):
        if poison:
            poison(engine)
        collect(engine.step(), results)
    base.head = real_head
    # The prefill and the decode batch both hold the four in order.
    return [logits[1] for logits in seen], results, sequences, engine


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("family", ["llama", "gemma3"])
@pytest.mark.parametrize("mine", [None, 1])
def test_prompts_and_adapters_of_neighbours(family, mine):
    alone, *_ = watched_logits(family, my_adapter=mine, others=[(1, None), (2, None), (3, None)])
    assert len(alone) == 11
    for others in ([(4, 5), (5, 6), (6, 8)], [(1, 1), (2, 1), (3, 1)], [(9, None), (2, 8), (7, 1)]):
        mixed, *_ = watched_logits(family, my_adapter=mine, others=others)
        assert same(alone, mixed)


@pytest.mark.parametrize("family", ["llama", "mistral", "gpt_neox"])
def test_nan_in_a_neighbours_rows_and_slots(family):
    others = [(1, 5), (2, None), (3, 6)]
    clean, *_ = watched_logits(family, my_adapter=1, others=others)

    def poison(engine):
        for row in (0, 3):
            sequence = engine.scheduler.rows[row]
            if sequence is not None and sequence.phase is Phase.DECODE:
                for layer in engine.runner.cache.rows:
                    layer.keys[row].fill_(float("nan"))
                    layer.values[row, :, 2:].fill_(float("inf"))
                for a, b in engine.bank.tensors(sequence.slot).values():
                    a.fill_(float("nan")), b.fill_(float("inf"))
                engine.bank._kept.forget(sequence.slot)

    dirty, results, sequences, engine = watched_logits(family, my_adapter=1, others=others, poison=poison)
    assert same(clean, dirty)
    for row in (0, 3):  # an honest end for those whose numbers were spoilt
        assert results[sequences[row]][2].code in ("adapter_corrupt", "model_error")
    drain(engine, results)
    assert results[sequences[1]][2].finish_reason == "length"


def test_a_row_freed_by_nan_serves_the_next_one_untouched():
    base = tiny_base()
    fresh = engine_for(base, end_ids=(), max_num_seqs=1)
    expected = drain(fresh)[s][0] if (s := fresh.add(request(prompt(9, 7)))) else None
    engine = engine_for(base, end_ids=(), max_num_seqs=1)
    engine.prepare(make_ref(1), random_adapter(base, 1))
    victim = engine.add(request(prompt(30, 1), make_ref(1), max_tokens=30))
    for _ in range(4):
        engine.step()
    for layer in engine.runner.cache.rows:
        layer.keys[0].fill_(float("nan"))
        layer.values[0].fill_(float("nan"))
    engine.cancel(victim)
    assert all(not layer.keys.any() and not layer.values.any() for layer in engine.runner.cache.rows)
    mine = engine.add(request(prompt(9, 7)))
    assert drain(engine)[mine][0] == expected


def test_no_adapters_have_no_fingerprints():
    assert fingerprints(engine_for(tiny_base()), (), (prompt(4, 1),)) == ()
