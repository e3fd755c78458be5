"""Many (prompt, reply) rows as one rectangle: prompts end together, replies begin together.

Some first tokens of every prompt, all but the last one unless said otherwise, are the *prefix*: it is read without
gradient, or has been read before. The window is the rest of the prompt and the reply without its last token; the
predictions of its last prompt token and of the reply are the trained ones.

Shape letters: B rows, P prefix columns, W window columns, N trained positions of all rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Row:
    """One reply under one prompt.

    Attributes:
        prompt_ids: at least one token.
        completion_ids: at least one token.
        completion_mask: 1 where the token's prediction counts; at least one 1.
    """

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    completion_mask: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows as tensors.

    Attributes:
        prefix_ids: [B, P], padded on the left.
        window_ids: [B, W], padded on the right.
        attention_mask: [B, P + W], 0 on padding.
        position_ids: [B, P + W], counted from each row's first real token.
        row: [N], which row a trained position belongs to, ascending.
        column: [N], its column in the window.
        target_ids: [N], the token that was sampled there.
        lengths: of every row, the tokens of its prefix and of its window.
    """

    prefix_ids: Tensor
    window_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    row: Tensor
    column: Tensor
    target_ids: Tensor
    lengths: tuple[tuple[int, int], ...]


def collate(
    rows: Sequence[Row],
    device: torch.device | str = "cpu",
    pad_id: int = 0,
    prefix_lengths: Sequence[int] | None = None,
) -> Batch:
    """Lay out ``rows`` as one batch on ``device``.

    Args:
        pad_id: any valid token, it is never looked at.
        prefix_lengths: how many tokens of every prompt are its prefix, less than it has; None: all but the last one.
    """
    lengths = [len(row.prompt_ids) - 1 for row in rows] if prefix_lengths is None else prefix_lengths
    assert all(0 <= n < len(row.prompt_ids) for row, n in zip(rows, lengths, strict=True)), "a prompt's last is read"
    prefixes = [list(row.prompt_ids[:n]) for row, n in zip(rows, lengths, strict=True)]
    windows = [[*row.prompt_ids[n:], *row.completion_ids[:-1]] for row, n in zip(rows, lengths, strict=True)]
    num_prefix, num_window = max(map(len, prefixes)), max(map(len, windows))
    prefix = [[pad_id] * (num_prefix - len(ids)) + ids for ids in prefixes]
    window = [ids + [pad_id] * (num_window - len(ids)) for ids in windows]
    mask = [
        [0] * (num_prefix - len(p)) + [1] * (len(p) + len(w)) + [0] * (num_window - len(w))
        for p, w in zip(prefixes, windows, strict=True)
    ]
    trained = [
        (index, column, token)
        for index, (row, n) in enumerate(zip(rows, lengths, strict=True))
        for column, (token, counts) in enumerate(
            zip(row.completion_ids, row.completion_mask, strict=True), start=len(row.prompt_ids) - 1 - n
        )
        if counts
    ]
    attention_mask = torch.tensor(mask, device=device)
    where = torch.tensor(trained, device=device).T
    return Batch(
        prefix_ids=torch.tensor(prefix, dtype=torch.long, device=device),
        window_ids=torch.tensor(window, device=device),
        attention_mask=attention_mask,
        position_ids=(attention_mask.cumsum(-1) - 1).clamp(min=0),
        row=where[0],
        column=where[1],
        target_ids=where[2],
        lengths=tuple((len(p), len(w)) for p, w in zip(prefixes, windows, strict=True)),
    )
