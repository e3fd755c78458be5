"""Explicit attention masks for left-aligned rows.

Row n's tokens lie at positions 0, 1, 2, … of its own row, so a query at position q may read the keys 0 … q and
nothing else: padding and unused places need no rule of their own.
"""

import torch
from torch import Tensor

from personalize.errors import ModelError

AttentionMask = Tensor | dict[str, Tensor]


class MaskForm:
    """Which masks a model's forward wants: one for all layers, or one per layer type.

    The rule is that of ``transformers.masking_utils.create_masks_for_generate``.
    """

    def __init__(self, config):
        self.window: int | None = getattr(config, "sliding_window", None)
        layer_types = getattr(config, "layer_types", None)
        self.layer_types = tuple(dict.fromkeys(layer_types)) if layer_types else ()
        unknown = set(self.layer_types) - {"full_attention", "sliding_attention"}
        if unknown or (not self.layer_types and not self.window and getattr(config, "attention_chunk_size", None)):
            raise ModelError(f"attention of type {sorted(unknown) or 'chunked'} is not supported")
        if getattr(config, "use_bidirectional_attention", None):
            raise ModelError("a model with bidirectional attention cannot generate")

    def masks(self, positions: Tensor, num_keys: int, dtype: torch.dtype) -> AttentionMask:
        """Return additive masks [N, 1, T, L]: 0 where a query may look, the lowest number of ``dtype`` elsewhere.

        Args:
            positions: position of every query [N, T].
            num_keys: L, the keys 0 … L-1 of each row.
        """
        keys = torch.arange(num_keys, device=positions.device)
        queries = positions[:, None, :, None]
        causal = keys <= queries
        if self.layer_types:
            return {kind: _additive(self._windowed(kind, causal, keys, queries), dtype) for kind in self.layer_types}
        kind = "sliding_attention" if self.window else "full_attention"
        return _additive(self._windowed(kind, causal, keys, queries), dtype)

    def _windowed(self, kind: str, causal: Tensor, keys: Tensor, queries: Tensor) -> Tensor:
        if kind == "full_attention" or not self.window:
            return causal
        return causal & (keys > queries - self.window)


def _additive(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    mask = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
    return mask.masked_fill_(~allowed, torch.finfo(dtype).min)
