"""Keys and values that one pass has computed and another may read: only under the very same weights.

A key depends on every token before it, on the base, on the adapter and on the adapter's scale. All of them are part of
a prefix's name, so a prefix of other weights or of other tokens is never found, and refused where it is handed in.

Shape letters: B rows, H key heads, P prefix columns, D head width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional
from transformers import Cache, DynamicCache

from personalize.errors import ModelError
from personalize.learner.batch import Batch
from personalize.model.base import BaseModel
from personalize.model.lora import LoraTensors

Layer = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights that a pass runs on.

    Attributes:
        base_digest: which base model.
        adapter: whose tensors never change again, compared by identity; None is the adapter switched off.
        scaling: the adapter's; 0 without one.
    """

    base_digest: str
    adapter: LoraTensors | None = None
    scaling: float = 0.0

    @classmethod
    def of(cls, base: BaseModel, adapter: LoraTensors | None = None) -> Self:
        """Name ``base`` under ``adapter``.

        Raises:
            ModelError: the adapter is in training: after a step the same tensors are other weights.
        """
        if adapter is None:
            return cls(base.base_digest)
        if any(tensor.requires_grad for tensor in adapter.parameters()):
            raise ModelError("the keys of an adapter in training cannot be kept: its weights change in place")
        return cls(base.base_digest, adapter, adapter.scaling)


@dataclass(frozen=True, slots=True, eq=False)
class Prefix:
    """The first tokens of one conversation, as some weights read them.

    Attributes:
        layers: keys and values of every layer, each [H, P, D], without gradient.
    """

    weights: Weights
    token_ids: tuple[int, ...]
    layers: tuple[Layer, ...]

    @property
    def num_bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for layer in self.layers for tensor in layer)

    def part(self, start: int, stop: int) -> tuple[Layer, ...]:
        """Return copies of the keys and values of the tokens from ``start`` to before ``stop``."""
        return tuple((keys[:, start:stop].clone(), values[:, start:stop].clone()) for keys, values in self.layers)


@dataclass(frozen=True, slots=True)
class Known:
    """What has been read of the prompts of a batch.

    Attributes:
        prefixes: of every row, at least as long as what the batch leaves to it; None where it leaves nothing.
        weights: those that are to have read it, of every row.
    """

    prefixes: Sequence[Prefix | None]
    weights: Sequence[Weights]

    def of(self, rows: Sequence[int]) -> "Known":
        """Return what is known of some rows."""
        return Known([self.prefixes[row] for row in rows], [self.weights[row] for row in rows])

    def load(self, batch: Batch) -> DynamicCache:
        """Return a cache that holds the prefix columns of ``batch``.

        Raises:
            ModelError: a prefix is of other weights, or of other tokens.
        """
        return load(batch, self.prefixes, self.weights) or empty_cache()


def num_shared(some: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens both begin with."""
    pairs = zip(some, other, strict=False)
    return next((place for place, (one, two) in enumerate(pairs) if one != two), min(len(some), len(other)))


def cut(cache: Cache, batch: Batch, row: int, weights: Weights, token_ids: Sequence[int]) -> Prefix:
    """Return what a pass over ``batch`` left in its ``cache`` for the first tokens of one row; a view.

    Args:
        weights: those that the pass ran on in this row.
        token_ids: the first tokens of the row.

    Raises:
        ModelError: the row begins with other tokens.
    """
    start = int(batch.attention_mask[row].argmax())
    stop = start + len(token_ids)
    ids = torch.cat([batch.prefix_ids[row], batch.window_ids[row]])[start:stop].tolist()
    if ids != list(token_ids) or not bool(batch.attention_mask[row, start:stop].all()):
        raise ModelError(f"row {row} of the batch does not begin with these {len(token_ids)} tokens")
    layers = ((layer.keys[row, :, start:stop], layer.values[row, :, start:stop]) for layer in cache.layers)  # pyright: ignore
    return Prefix(weights, tuple(token_ids), tuple((keys.detach(), values.detach()) for keys, values in layers))


def load(batch: Batch, prefixes: Sequence[Prefix | None], weights: Sequence[Weights]) -> DynamicCache | None:
    """Return a cache that holds the prefix columns of ``batch``; None where it has none.

    Args:
        prefixes: of every row, at least as long as what the batch leaves to it; None where it leaves nothing.
        weights: those that the pass will run on, of every row.

    Raises:
        ModelError: a prefix is of other weights, or of other tokens.
    """
    num_prefix = batch.prefix_ids.shape[1]
    if not num_prefix:
        return None
    rows = [_padded(batch, row, *pair) for row, pair in enumerate(zip(prefixes, weights, strict=True))]
    some = next(row for row in rows if row is not None)
    empty = [(keys.new_zeros(keys.shape), values.new_zeros(values.shape)) for keys, values in some]
    cache = empty_cache()
    for number, layer in enumerate(zip(*(row or empty for row in rows), strict=True)):
        cache.update(torch.stack([keys for keys, _ in layer]), torch.stack([values for _, values in layer]), number)
    return cache


def empty_cache() -> DynamicCache:
    """Return a cache that keeps every token in every layer; where a layer has a window, the mask sees to it."""
    return DynamicCache()


def _padded(batch: Batch, row: int, prefix: Prefix | None, weights: Weights) -> list[Layer] | None:
    num_prefix = batch.prefix_ids.shape[1]
    real = batch.attention_mask[row, :num_prefix].bool()
    ids = batch.prefix_ids[row][real].tolist()
    if not ids:
        return None
    if prefix is None or prefix.weights != weights or list(prefix.token_ids[: len(ids)]) != ids:
        raise ModelError(f"row {row} was handed the keys of {_difference(prefix, weights)}")
    pad = (0, 0, num_prefix - len(ids), 0)
    return [
        (functional.pad(keys[:, : len(ids)], pad), functional.pad(values[:, : len(ids)], pad))
        for keys, values in prefix.layers
    ]


def _difference(prefix: Prefix | None, weights: Weights) -> str:
    if prefix is None:
        return "nobody, but needs some"
    return "other weights than its pass runs on" if prefix.weights != weights else "other tokens than its own"
