"""Batches depend on seed and place alone, hold their token budget, and pad little."""

from itertools import islice

import torch
from transformers import PreTrainedTokenizerFast

from personalize.recipes.batches import Batches
from personalize.recipes.tokens import MAX_TOKENS, DialogueEncoder


def _batches(tokenizer: PreTrainedTokenizerFast, seed: int) -> Batches:
    return Batches(DialogueEncoder(tokenizer), seed=seed, num_tokens=2_000)


def test_a_pool_is_determined_by_seed_and_index(tokenizer: PreTrainedTokenizerFast) -> None:
    rows = list(islice(_batches(tokenizer, 1).starting_at(0), 60))
    second = next(place for place, (after, _) in enumerate(rows) if after == 1) + 1
    again = next(iter(_batches(tokenizer, 1).starting_at(1)))[1]
    other = next(iter(_batches(tokenizer, 2).starting_at(1)))[1]
    assert torch.equal(rows[second][1].ids, again.ids)
    assert rows[second][1].ids.tolist() != other.ids.tolist()


def test_batches_keep_the_budget(tokenizer: PreTrainedTokenizerFast) -> None:
    rows = [batch for _, batch in islice(_batches(tokenizer, 3).starting_at(0), 40)]
    assert all(batch.ids.numel() <= 2_000 for batch in rows)
    assert all(batch.ids.shape[1] <= MAX_TOKENS for batch in rows)
    assert sum(int((batch.ids == 0).sum()) for batch in rows) < 0.2 * sum(batch.ids.numel() for batch in rows)
    assert all(not batch.weights[batch.ids == 0].any() for batch in rows)
