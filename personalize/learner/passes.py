"""One forward over a batch of replies: log-probabilities at the trained positions.

Shape letters: B rows, N trained positions, d hidden size, V vocabulary.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import Cache

from personalize.learner.batch import Batch, Row, collate
from personalize.learner.parts import parts
from personalize.learner.prefixes import Known, Prefix, Weights, cut, empty_cache
from personalize.model.base import BaseModel
from personalize.model.rows import AdapterRows

MAX_LOGITS = 1 << 22
"""Most logits that are computed at a stretch: fewer would read the head's weights too often."""
MAX_VALUES = 1 << 20
"""Most values of distributions that are compared at a stretch."""


def reply_log_probs(
    base: BaseModel,
    batch: Batch,
    rows: AdapterRows | None,
    *,
    grad: bool = False,
    cache: Cache | None = None,
    known: Known | None = None,
) -> Tensor:
    """Return log π(· | prompt, y_<i) at every trained position, [N, V] in fp32.

    The prefix's keys and values carry no gradient, so a backward pass costs what the reply costs, however long the
    history is. Without ``cache`` the batch may be read in parts with less padding.

    Args:
        rows: the adapter of every batch row; None is the base model.
        grad: build a graph from the window to the adapters in ``rows``.
        cache: the batch's prefix, which the pass extends.
        known: the same row by row; None, and no cache, has it read first, under ``rows``.
    """
    if cache is not None:
        trained = _read(base, batch, rows, grad, cache)
    else:
        trained = _read_parts(base, batch, rows, grad, known)
    with torch.set_grad_enabled(grad):
        return by_position(base, lambda some: _log_probs(base, some), trained, at_once=MAX_LOGITS)


@torch.no_grad()
def token_log_probs(base: BaseModel, rows: Sequence[Row], adapters: AdapterRows | None = None) -> Tensor:
    """Return log π(y_i | prompt, y_<i) of every trained token of ``rows``, [N] in fp32; no adapters: the base."""
    batch = collate(rows, base.device)
    return reply_log_probs(base, batch, adapters).gather(-1, batch.target_ids[:, None])[:, 0]


@torch.no_grad()
def read_prefix(base: BaseModel, batch: Batch, rows: AdapterRows | None) -> Cache:
    """Return the keys and values of the batch's prefix columns under ``rows``; empty where there are none."""
    num_prefix, cache = batch.prefix_ids.shape[1], empty_cache()
    if num_prefix:
        base.hidden(
            batch.prefix_ids,
            position_ids=batch.position_ids[:, :num_prefix],
            attention_mask=batch.attention_mask[:, :num_prefix],
            cache=cache,
            rows=rows,
        )
    return cache


@torch.no_grad()
def read_prefixes(
    base: BaseModel, rows: Sequence[Row], adapters: AdapterRows | None, weights: Sequence[Weights]
) -> list[Prefix]:
    """Read every row's prompt but its last token; return the keys and values of each by itself.

    Args:
        adapters: of every row; None is the base model.
        weights: their names, of every row.
    """
    batch = collate(rows, base.device)
    found: dict[int, Prefix] = {}
    for part in parts(base, batch):
        its_adapters = adapters.take(part.rows, len(rows)) if adapters else None
        cache = read_prefix(base, part.batch, its_adapters)
        for place, row in enumerate(part.rows):
            found[row] = cut(cache, part.batch, place, weights[row], rows[row].prompt_ids[:-1])
    return [found[row] for row in range(len(rows))]


def by_position(
    base: BaseModel, function: Callable[..., Tensor], *values: Tensor, at_once: int | None = None
) -> Tensor:
    """Return ``function(*values)``, which treats every position alone; the pass may be paused between its parts.

    Args:
        values: each [N, ...].
        at_once: most values, of V per position, that are computed at a stretch; None is ``MAX_VALUES``.
    """
    num_positions = len(values[0])
    num_parts = -(-num_positions * base.vocab_size // (at_once or MAX_VALUES))
    if num_parts <= 1:
        return base.pausable(function(*values))
    size = -(-num_positions // num_parts)
    parts = zip(*(tensor.split(size) for tensor in values), strict=True)
    return torch.cat([base.pausable(function(*part)) for part in parts])


def _log_probs(base: BaseModel, hidden: Tensor) -> Tensor:
    return torch.log_softmax(base.pausable(base.head(hidden)).float(), dim=-1)


def _read_parts(
    base: BaseModel, batch: Batch, rows: AdapterRows | None, grad: bool, known: Known | None = None
) -> Tensor:
    """Return the hidden states [N, d] at the trained positions, whatever order the rows are read in."""
    found = parts(base, batch, grad=grad)
    read = []
    for part in found:
        its_rows = rows.take(part.rows, len(batch.lengths)) if rows else None
        cache = known.of(part.rows).load(part.batch) if known else read_prefix(base, part.batch, its_rows)
        read.append(_read(base, part.batch, its_rows, grad, cache))
    if len(found) == 1:
        return read[0]
    with torch.set_grad_enabled(grad):
        return torch.cat(read)[torch.cat([part.trained for part in found]).argsort()]


def _read(base: BaseModel, batch: Batch, rows: AdapterRows | None, grad: bool, cache: Cache) -> Tensor:
    """Return the hidden states [N, d] at the trained positions behind the prefix in ``cache``."""
    with torch.set_grad_enabled(grad):
        hidden = base.hidden(
            batch.window_ids,
            position_ids=batch.position_ids[:, batch.prefix_ids.shape[1] :],
            attention_mask=batch.attention_mask,
            cache=cache,
            rows=rows,
        )
        return hidden[batch.row, batch.column]
