"""The forward passes of serving."""

from collections.abc import Sequence as Items

import torch
from torch import Tensor

from personalize.engine.graphs import DecodeGraphs
from personalize.engine.row_cache import LENGTH_STEP, FreshRows, NextTokens, OneRow, RowCache, round_up
from personalize.engine.sequences import Phase, Sequence
from personalize.model.bank import BASE_SLOT, AdapterBank
from personalize.model.base import BaseModel

_PROMPT_STEP = 8


class Runner:
    """Runs prompts and single steps over the row cache; the shapes of its batches come from buckets.

    Attributes:
        graphs: records and replays single steps; None runs them eagerly, as on a CPU.
    """

    def __init__(self, base: BaseModel, bank: AdapterBank, *, max_num_seqs: int, cuda_graphs: bool = False):
        self.base, self.bank = base, bank
        self.max_num_seqs = max_num_seqs
        self.cache = RowCache(base.config.num_hidden_layers, max_rows=max_num_seqs, max_length=base.max_model_len)
        wanted = cuda_graphs and base.device.type == "cuda"
        self.graphs = DecodeGraphs(base, bank, self.cache) if wanted else None

    @torch.no_grad()
    def prefill(self, sequences: Items[Sequence]) -> Tensor:
        """Run whole prompts, padded to one length; return the logits [N, V] of their last tokens."""
        longest = max(len(sequence.prompt_ids) for sequence in sequences)
        length = min(round_up(longest, _PROMPT_STEP), self.cache.max_length)
        padded = [[*s.prompt_ids, *[0] * (length - len(s.prompt_ids))] for s in sequences]
        self.cache.reserve(1 + max(s.row for s in sequences), length)
        self.cache.placement = FreshRows([s.row for s in sequences], self.base.device)
        hidden = self._forward(padded, 0, length, [s.slot for s in sequences])
        last = torch.tensor([len(s.prompt_ids) - 1 for s in sequences], device=hidden.device)
        for sequence in sequences:
            sequence.num_cached = len(sequence.prompt_ids)
        return self.base.head(hidden[torch.arange(len(sequences), device=hidden.device), last])

    @torch.no_grad()
    def prefill_chunk(self, sequence: Sequence, max_tokens: int) -> Tensor | None:
        """Run the next ``max_tokens`` of one long prompt; return the logits [1, V] when it is complete."""
        start = sequence.num_cached
        chunk = sequence.prompt_ids[start : start + max_tokens]
        stop = start + len(chunk)
        num_keys = min(round_up(stop, LENGTH_STEP), self.cache.max_length)
        self.cache.reserve(1 + sequence.row, num_keys)
        self.cache.placement = OneRow(sequence.row, start, num_keys)
        hidden = self._forward([list(chunk)], start, num_keys, [sequence.slot])
        sequence.num_cached = stop
        return self.base.head(hidden[:, -1]) if stop == len(sequence.prompt_ids) else None

    @torch.no_grad()
    def decode(self, sequences: Items[Sequence]) -> Tensor:
        """Run the newest token of each sequence; return the logits [N, V] in the order of ``sequences``.

        The batch is the rows 0 … n-1; rows that do not decode compute something that nobody reads.
        """
        num_rows = self._bucket(1 + max(s.row for s in sequences))
        tokens, positions, slots = [0] * num_rows, [0] * num_rows, [BASE_SLOT] * num_rows
        for sequence in sequences:
            assert sequence.phase is Phase.DECODE
            tokens[sequence.row] = sequence.last_token
            positions[sequence.row] = sequence.num_cached
            slots[sequence.row] = sequence.slot
        rows = [s.row for s in sequences]
        logits = self._step(tokens, positions, slots, rows)
        for sequence in sequences:
            sequence.num_cached += 1
        return logits if rows == list(range(num_rows)) else logits[torch.tensor(rows, device=logits.device)]

    def _step(self, tokens: list[int], positions: list[int], slots: list[int], rows: list[int]) -> Tensor:
        if self.graphs is not None:
            return self.graphs.step(tokens, positions, slots, rows)
        device = self.base.device
        num_keys = min(round_up(max(positions) + 1, LENGTH_STEP), self.cache.max_length)
        self.cache.reserve(len(tokens), num_keys)
        packed = torch.tensor([tokens, positions], device=device)
        active = None if len(rows) == len(tokens) else torch.tensor(rows, device=device)
        self.cache.placement = NextTokens(packed[1], active, num_keys)
        masks = self.base.mask_form.masks(packed[1, :, None], num_keys, self.base.dtype)
        adapters = self.bank.decode_rows(slots)
        hidden = self.base.hidden(packed[0, :, None], packed[1, :, None], masks, self.cache, adapters)
        return self.base.head(hidden[:, -1])

    def _forward(self, ids: list[list[int]], start: int, num_keys: int, slots: list[int]) -> Tensor:
        tokens = torch.tensor(ids, device=self.base.device)
        positions = torch.arange(start, start + tokens.shape[1], device=tokens.device)
        positions = positions.clamp_max(self.base.max_model_len - 1).expand(tokens.shape)
        masks = self.base.mask_form.masks(positions[:1], num_keys, self.base.dtype)
        return self.base.hidden(tokens, positions, masks, self.cache, self.bank.rows(slots))

    def _bucket(self, num_rows: int) -> int:
        """Round up to a power of two, from 16 on to a multiple of 8."""
        size = round_up(num_rows, 8) if num_rows > 16 else 1 << (num_rows - 1).bit_length()
        return min(size, self.max_num_seqs)
