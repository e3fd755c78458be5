"""One forward over a batch of replies: log-probabilities at the trained positions.

Shape letters: B rows, N trained positions, V vocabulary.
"""

import torch
from torch import Tensor
from transformers import DynamicCache

from personalize.learner.batch import Batch
from personalize.model.base import BaseModel
from personalize.model.rows import AdapterRows


def reply_log_probs(base: BaseModel, batch: Batch, rows: AdapterRows | None, *, grad: bool = False) -> Tensor:
    """Return log π(· | prompt, y_<i) at every trained position, [N, V] in fp32.

    The prefix's keys and values carry no gradient, so a backward pass costs what the reply costs, however long the
    history is. They are computed anew by every pass: under other weights they would be somebody else's.

    Args:
        rows: the adapter of every batch row; None is the base model.
        grad: build a graph from the window to the adapters in ``rows``.
    """
    num_prefix = batch.prefix_ids.shape[1]
    cache = None
    if num_prefix:
        cache = DynamicCache(config=base.module.config)
        with torch.no_grad():
            base.hidden(
                batch.prefix_ids,
                position_ids=batch.position_ids[:, :num_prefix],
                attention_mask=batch.attention_mask[:, :num_prefix],
                cache=cache,
                rows=rows,
            )
    with torch.set_grad_enabled(grad):
        hidden = base.hidden(
            batch.window_ids,
            position_ids=batch.position_ids[:, num_prefix:],
            attention_mask=batch.attention_mask,
            cache=cache,
            rows=rows,
        )
        return torch.log_softmax(base.head(hidden[batch.row, batch.column]).float(), dim=-1)
