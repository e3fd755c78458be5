"""A batch of rows of unlike lengths, cut into smaller batches with less padding.

A conversation's turn and a question out of nowhere lie side by side in one update: their prompts differ by a factor of
twenty, their replies by one of five, and every column of padding costs what a token costs.

Shape letters: B rows, P prefix columns, W window columns, N trained positions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from personalize.learner.batch import Batch
from personalize.model.base import BaseModel

Length = tuple[int, int]
"""Tokens of a row's prefix, and of its window."""

WINDOW_WEIGHT = {False: 1, True: 3}
"""What a token of the window costs over one of the prefix, without and with a backward pass."""
CALL_PRODUCTS = {"cpu": 2e7}
"""What a call of one linear layer costs besides its own products, forward and backward, in products: about 0.5 ms."""
CALL_PRODUCTS_ELSEWHERE = 5e10
"""The same on an accelerator, whose products are a thousand times cheaper and whose calls are not."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some rows of a batch.

    Attributes:
        rows: where they stand in the whole, ascending.
        batch: the same rows alone.
        trained: [n], where its trained positions stand among the N of the whole.
    """

    rows: tuple[int, ...]
    batch: Batch
    trained: Tensor


def parts(base: BaseModel, batch: Batch, *, grad: bool = False) -> list[Part]:
    """Return ``batch`` in the cheapest parts; a single one that is the batch itself where cutting does not pay.

    Args:
        grad: there will be a backward pass, through the windows.
    """
    groups = cheapest(batch.lengths, WINDOW_WEIGHT[grad], pass_tokens(base))
    if len(groups) == 1:
        return [Part(groups[0], batch, torch.arange(len(batch.row), device=batch.row.device))]
    return [_part(batch, rows) for rows in groups]


def pass_tokens(base: BaseModel) -> int:
    """Return what one more pass costs, whatever it reads, in tokens: the fewer, the wider the model."""
    products = sum(d_in * d_out for d_in, d_out in base.targets.values())
    return round(CALL_PRODUCTS.get(base.device.type, CALL_PRODUCTS_ELSEWHERE) * len(base.targets) / products)


def cheapest(lengths: Sequence[Length], window_weight: int, group_tokens: int) -> list[tuple[int, ...]]:
    """Return the rows in groups of like lengths: the best cut of the rows by prefix, or that by window if it is better.

    Args:
        window_weight: see ``WINDOW_WEIGHT``.
        group_tokens: what a group costs besides its tokens.
    """

    def by_prefix(row: int) -> Length:
        return lengths[row]

    def by_window(row: int) -> Length:
        prefix, window = lengths[row]
        return window, prefix

    found = [_cut(lengths, key, window_weight, group_tokens) for key in (by_prefix, by_window)]
    _, groups = min(found, key=lambda one: one[0])
    return sorted(tuple(sorted(group)) for group in groups)


def _part(batch: Batch, rows: tuple[int, ...]) -> Part:
    """Return some rows, ascending, without the columns that none of them needs."""
    lengths = tuple(batch.lengths[row] for row in rows)
    num_prefix = batch.prefix_ids.shape[1]
    start = num_prefix - max(prefix for prefix, _ in lengths)
    num_window = max(window for _, window in lengths)
    chosen = torch.tensor(rows, device=batch.row.device)
    (trained,) = torch.isin(batch.row, chosen).nonzero(as_tuple=True)
    columns = slice(start, num_prefix + num_window)
    alone = Batch(
        prefix_ids=batch.prefix_ids[chosen, start:],
        window_ids=batch.window_ids[chosen, :num_window],
        attention_mask=batch.attention_mask[chosen, columns],
        position_ids=batch.position_ids[chosen, columns],
        row=torch.searchsorted(chosen, batch.row[trained]),
        column=batch.column[trained],
        target_ids=batch.target_ids[trained],
        lengths=lengths,
    )
    return Part(rows, alone, trained)


def _cut(
    lengths: Sequence[Length], key: Callable[[int], Length], window_weight: int, group_tokens: int
) -> tuple[int, list[list[int]]]:
    """Return the cheapest cut of the rows in the order of ``key`` into runs, and its cost; by dynamic programming."""
    order = sorted(range(len(lengths)), key=key)
    best: list[tuple[int, int]] = [(0, 0)]  # cost of the first n rows, and where their last run begins
    for stop in range(1, len(order) + 1):
        prefix = window = 0
        found = []
        for start in range(stop - 1, -1, -1):
            prefix, window = max(prefix, lengths[order[start]][0]), max(window, lengths[order[start]][1])
            tokens = (stop - start) * (prefix + window_weight * window)
            found.append((best[start][0] + tokens + group_tokens, start))
        best.append(min(found))
    runs, stop = [], len(order)
    while stop:
        start = best[stop][1]
        runs.append(order[start:stop])
        stop = start
    return best[-1][0], runs
