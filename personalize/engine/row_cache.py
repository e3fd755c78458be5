"""Keys and values of running sequences: one row per sequence, left-aligned, on transformers' cache classes.

Shape letters: S rows, H key/value heads, L places, D head size, N batch rows, T new tokens.

Every layer owns keys and values [S, H, L, D]. A forward writes each sequence's new tokens at that sequence's own
positions and reads rows, never a mix of rows, so nothing of one sequence (NaN included) meets another. Places beyond a
row's length are zero or were written by the row itself, and a freed row is zeroed: what is masked is always finite
unless the row's own values are not.

Sliding-window layers keep the whole row too and are windowed by the mask: simpler than a ring, and a row is short.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

LENGTH_STEP = 64
_FIRST_LENGTH = 256


class Placement(Protocol):
    """Where a forward's new keys (or values) go, and what its queries read."""

    def place(self, stored: Tensor, new: Tensor) -> Tensor:
        """Write ``new`` [N, H, T, D] into ``stored`` [S, H, L, D]; return what attention reads [N, H, L', D]."""
        ...


class FreshRows:
    """The first tokens of several sequences: they read nothing but themselves."""

    def __init__(self, rows: Sequence[int], device: torch.device):
        self._rows = torch.tensor(rows, device=device)

    def place(self, stored: Tensor, new: Tensor) -> Tensor:
        stored[:, :, : new.shape[2]].index_copy_(0, self._rows, new)
        return new


class OneRow:
    """The tokens from ``start`` on of a single sequence."""

    def __init__(self, row: int, start: int, num_keys: int):
        self._row, self._start, self._num_keys = row, start, num_keys

    def place(self, stored: Tensor, new: Tensor) -> Tensor:
        stored[self._row, :, self._start : self._start + new.shape[2]] = new[0]
        return stored[self._row : self._row + 1, :, : self._num_keys]


class NextTokens:
    """One token for each of the rows 0 … N-1; rows that are not ``active`` are read but never written."""

    def __init__(self, positions: Tensor, active: Tensor | None, num_keys: int):
        """Args: positions [N]; active: indices of the rows that decode, None for all; num_keys: places to read."""
        self._num_rows, self._num_keys = positions.shape[0], num_keys
        self._active = active
        self._rows = torch.arange(self._num_rows, device=positions.device) if active is None else active
        self._positions = positions if active is None else positions[active]

    def place(self, stored: Tensor, new: Tensor) -> Tensor:
        tokens = new[:, :, 0]
        stored[self._rows, :, self._positions] = tokens if self._active is None else tokens[self._active]
        return stored[: self._num_rows, :, : self._num_keys]


class RowCache(Cache):
    """A cache of ``max_rows`` rows of at most ``max_length`` tokens; memory follows what is in use.

    Set ``placement`` before every forward.
    """

    def __init__(self, num_layers: int, *, max_rows: int, max_length: int):
        self.max_rows = max_rows
        self.max_length = round_up(max_length, LENGTH_STEP)
        self.num_rows = 0
        self.length = 0
        self.placement: Placement | None = None
        self.rows: list[RowLayer] = [RowLayer(self) for _ in range(num_layers)]
        super().__init__(layers=list(self.rows))

    def reserve(self, num_rows: int, length: int) -> None:
        """Make room for the rows 0 … num_rows-1 with ``length`` tokens each; what is stored stays.

        Where memory runs out, what is stored stays as well, and the next call tries again.
        """
        rows = _grown(self.num_rows, num_rows, 1, self.max_rows)
        places = _grown(self.length, length, _FIRST_LENGTH, self.max_length)
        if (rows, places) != (self.num_rows, self.length):
            for layer in self.rows:  # one by one: no moment needs the memory of all old and all new ones
                layer.grow(rows, places)
            self.num_rows, self.length = rows, places

    def copy_row(self, row: int, source: "RowCache", num_tokens: int) -> None:
        """Copy the first tokens of row 0 of ``source`` into a row of this cache, which is zero."""
        self.reserve(1 + row, num_tokens)
        for mine, theirs in zip(self.rows, source.rows, strict=True):
            assert theirs.keys is not None and theirs.values is not None
            if mine.keys is None or mine.values is None:
                mine.lazy_initialization(theirs.keys, theirs.values)
            assert mine.keys is not None and mine.values is not None
            mine.keys[row, :, :num_tokens] = theirs.keys[0, :, :num_tokens]
            mine.values[row, :, :num_tokens] = theirs.values[0, :, :num_tokens]

    def clear_row(self, row: int) -> None:
        """Zero a row: no byte of the sequence that had it stays."""
        for layer in self.rows:
            if layer.keys is not None and layer.values is not None and row < layer.keys.shape[0]:
                layer.keys[row].zero_()
                layer.values[row].zero_()


class RowLayer(CacheLayerMixin):
    """Keys and values of one model layer."""

    def __init__(self, cache: RowCache):
        super().__init__()
        self._cache = cache

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        shape = (self._cache.num_rows, self._cache.length)
        self.keys, self.values = _zeros_like(key_states, *shape), _zeros_like(value_states, *shape)
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        if self.keys is None or self.values is None:
            self.lazy_initialization(key_states, value_states)
        placement = self._cache.placement
        assert placement is not None and self.keys is not None and self.values is not None
        return placement.place(self.keys, key_states), placement.place(self.values, value_states)

    def grow(self, num_rows: int, length: int) -> None:
        if self.keys is not None and self.values is not None:
            self.keys, self.values = (_copied(old, num_rows, length) for old in (self.keys, self.values))

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        raise AssertionError("rows have lengths of their own: masks are always given")

    def get_seq_length(self) -> int:
        raise AssertionError("rows have lengths of their own: positions are always given")

    def get_max_length(self) -> int:
        return self._cache.max_length


def round_up(value: int, step: int) -> int:
    return -(-value // step) * step


def _grown(have: int, need: int, first: int, most: int) -> int:
    assert need <= most, f"{need} is beyond the cache's {most}"
    size = max(have, min(first, most))
    while size < need:
        size *= 2
    return min(size, most)


def _zeros_like(states: Tensor, num_rows: int, length: int) -> Tensor:
    return states.new_zeros(num_rows, states.shape[1], length, states.shape[3])


def _copied(old: Tensor, num_rows: int, length: int) -> Tensor:
    new = _zeros_like(old, num_rows, length)
    # A layer may be larger than asked, in places that nobody uses yet: an earlier growth failed behind it.
    held = old[:num_rows, :, :length]
    new[: held.shape[0], :, : held.shape[2]].copy_(held)
    return new
