import pytest
import torch

from personalize.engine import row_cache
from personalize.engine.row_cache import FreshRows, NextTokens, OneRow, RowCache

HEADS, SIZE = 2, 3
CPU = torch.device("cpu")


def states(num_rows, num_tokens, first):
    """Return keys whose values say where they came from, and their negatives as values."""
    keys = first + torch.arange(float(num_rows * num_tokens)).view(num_rows, 1, num_tokens, 1)
    keys = keys.expand(num_rows, HEADS, num_tokens, SIZE).contiguous()
    return keys, -keys


def update(cache, placement, keys, values):
    cache.placement = placement
    return cache.update(keys, values, 0)


def test_every_row_holds_its_own_tokens_at_its_own_positions():
    """A dictionary of lists as the judge, over prefills, chunks and steps while the cache grows."""
    cache, expected = RowCache(1, max_rows=6, max_length=600), {}
    cache.reserve(3, 8)
    keys, values = states(2, 8, 100.0)
    read, _ = update(cache, FreshRows([2, 0], CPU), keys, values)
    assert read is keys
    expected[2], expected[0] = keys[0, 0, :, 0].tolist(), keys[1, 0, :, 0].tolist()
    keys, values = states(1, 5, 200.0)
    read, _ = update(cache, OneRow(2, 8, 64), keys, values)
    expected[2] += keys[0, 0, :, 0].tolist()
    assert read.shape == (1, HEADS, 64, SIZE) and read[0, 0, :13, 0].tolist() == expected[2]
    cache.reserve(4, 400)
    assert (cache.num_rows, cache.length) == (6, 512) or cache.num_rows == 4
    keys, values = states(4, 1, 300.0)
    placement = NextTokens(torch.tensor([8, 0, 13, 0]), torch.tensor([0, 2]), 64)
    _, read = update(cache, placement, keys, values)
    expected[0].append(300.0)
    expected[2].append(302.0)
    for row in range(4):
        tokens = expected.get(row, [])
        assert (-read[row, 0, : len(tokens), 0]).tolist() == tokens
        assert not read[row, :, len(tokens) :].any()


def out_of_memory_at(call, monkeypatch):
    """Let the copy of this number fail, and no other."""
    real, calls = row_cache._copied, []

    def copied(*words):
        calls.append(words)
        if len(calls) == call:
            raise torch.OutOfMemoryError
        return real(*words)

    monkeypatch.setattr(row_cache, "_copied", copied)


def test_rows_that_do_not_decode_are_never_written():
    cache = RowCache(1, max_rows=2, max_length=64)
    cache.reserve(2, 64)
    keys, values = states(2, 1, 5.0)
    update(cache, NextTokens(torch.tensor([0, 0]), torch.tensor([0]), 64), keys, values)
    assert cache.rows[0].keys[0].any() and not cache.rows[0].keys[1].any()


def test_a_cleared_row_is_zero_and_its_neighbours_stay():
    cache = RowCache(1, max_rows=2, max_length=64)
    cache.reserve(2, 64)
    keys, values = states(2, 4, 5.0)
    update(cache, FreshRows([0, 1], CPU), keys, values)
    cache.clear_row(0)
    layer = cache.rows[0]
    assert not layer.keys[0].any() and not layer.values[0].any()
    assert torch.equal(layer.keys[1, :, :4], keys[1])
    cache.clear_row(1)
    assert not layer.keys.any() and not layer.values.any()


def test_memory_follows_use_up_to_the_limits():
    cache = RowCache(1, max_rows=16, max_length=1000)
    cache.reserve(1, 8)
    update(cache, FreshRows([0], CPU), *states(1, 8, 1.0))
    assert cache.rows[0].keys.shape == (1, HEADS, 256, SIZE)
    cache.reserve(3, 300)
    assert cache.rows[0].keys.shape == (4, HEADS, 512, SIZE)
    cache.reserve(16, 1000)
    assert cache.rows[0].keys.shape == (16, HEADS, 1024, SIZE)
    with pytest.raises(AssertionError, match="beyond"):
        cache.reserve(17, 8)


@pytest.mark.parametrize("call", [1, 2, 3, 4])  # keys and values of the first layer, then of the second
def test_a_growth_that_failed_keeps_what_is_stored_and_is_tried_again(call, monkeypatch):
    cache = RowCache(2, max_rows=4, max_length=1024)
    cache.reserve(1, 8)
    cache.placement = FreshRows([0], CPU)
    for layer in range(2):
        cache.update(*states(1, 8, 10.0 + layer), layer)
    out_of_memory_at(call, monkeypatch)
    with pytest.raises(torch.OutOfMemoryError):
        cache.reserve(4, 8)
    assert (cache.num_rows, cache.length) == (1, 256)
    cache.reserve(2, 300)  # fewer rows than those that some layers have by now, and more places
    for number, layer in enumerate(cache.rows):
        assert layer.keys.shape == layer.values.shape == (2, HEADS, 512, SIZE)
        assert torch.equal(layer.keys[:1, :, :8], states(1, 8, 10.0 + number)[0])
        assert not layer.keys[1].any() and not layer.keys[:, :, 8:].any()
