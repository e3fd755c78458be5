"""The teacher whose adapter is off, and what it keeps of the conversations that it reads.

Its keys depend on the base and on the tokens alone, never on a version, so they stay true as long as the process lives:
what stands before the hindsight block is read once, and read again by nobody while it is warm: not for the same turn
under another block, not when it is replayed, not for the next turn of that conversation.

Prefixes are read and kept in blocks of ``BLOCK`` tokens, each by a pass of its own over one row. So the passes are the
same ones whatever is kept, and an update is bit for bit the same with a warm cache, a cold one or a tiny one.

Source: fixed blocks named by all tokens up to their end, as in vLLM's automatic prefix caching.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache

from personalize.learner.batch import Row, collate
from personalize.learner.passes import reply_log_probs
from personalize.learner.prefixes import Known, Layer, Prefix, Weights, empty_cache, num_shared
from personalize.model.base import BaseModel

BLOCK = 64
"""Tokens that are read and kept together."""


@dataclass(frozen=True, slots=True)
class Told:
    """One reply under a prompt with a hindsight block.

    Attributes:
        owner: the user whose conversation it is; of a nameless one, "", nothing is kept.
        row: the reply under the prompt with the block.
        plain_ids: the same prompt without the block; both begin with what is worth keeping.
    """

    owner: str
    row: Row
    plain_ids: tuple[int, ...]

    @property
    def num_shared(self) -> int:
        """Tokens before the block that a reading without it has as its prefix too."""
        return min(num_shared(self.row.prompt_ids, self.plain_ids[:-1]), len(self.row.prompt_ids) - 1)

    @property
    def num_kept(self) -> int:
        """Tokens of the prompt that are read in blocks; the last one always belongs to the reply's pass."""
        return min(num_shared(self.row.prompt_ids, self.plain_ids), len(self.row.prompt_ids) - 1) // BLOCK * BLOCK


@dataclass(frozen=True, slots=True)
class _Name:
    """What a block of keys and values is found by: everything that they depend on, and whose they are."""

    owner: str
    weights: Weights
    token_ids: tuple[int, ...]


class BaseTeacher:
    """Says what the base model, told a block, thinks of replies.

    Only the thread that owns the device touches it, ``forget`` included, but for ``owners``, which any thread may ask.

    Args:
        max_bytes: of kept keys and values, least recently used out first; 0 keeps nothing and reads without blocks.
    """

    def __init__(self, base: BaseModel, max_bytes: int = 0):
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._base = base
        self._weights = Weights.of(base)
        self._blocks: dict[_Name, Prefix] = {}  # least recently used first; see ``Kept`` for why it is no OrderedDict

    def log_probs(self, told: Sequence[Told]) -> Tensor:
        """Return the base's log-probabilities [N, V] at the trained positions of all rows."""
        rows = [one.row for one in told]
        if not self.max_bytes:
            return reply_log_probs(self._base, collate(rows, self._base.device), None)
        prefixes = [self._prefix(one) for one in told]
        lengths = [0 if prefix is None else len(prefix.token_ids) for prefix in prefixes]
        batch = collate(rows, self._base.device, prefix_lengths=lengths)
        return reply_log_probs(self._base, batch, None, known=Known(prefixes, [self._weights] * len(rows)))

    def forget(self, owner: str) -> None:
        """Let go of everything that was read of this user's conversations."""
        for name in [name for name in self._blocks if name.owner == owner]:
            self._drop(name)

    def owners(self) -> frozenset[str]:
        """Return the users of whom something is kept."""
        return frozenset(name.owner for name in tuple(self._blocks))

    # --- blocks --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _prefix(self, told: Told) -> Prefix | None:
        """Return the keys of all the row's blocks: those that are kept, then those that have to be read."""
        ids = told.row.prompt_ids[: told.num_kept]
        if not ids:
            return None
        names = [_Name(told.owner, self._weights, ids[:stop]) for stop in range(BLOCK, len(ids) + 1, BLOCK)]
        cache, num_found = self._found(names)
        for name in names[num_found:]:
            self._read(name, cache)
        prefix = _of_cache(cache, self._weights, ids)
        for place, name in enumerate(names[num_found:], start=num_found):
            self._keep(name, prefix.part(place * BLOCK, (place + 1) * BLOCK))
        return prefix

    def _found(self, names: Sequence[_Name]) -> tuple[DynamicCache, int]:
        """Return the first blocks as a cache, up to the first that is not kept, and their number."""
        found: list[Prefix] = []
        for name in names:
            if name not in self._blocks:
                break
            self._blocks[name] = self._blocks.pop(name)
            found.append(self._blocks[name])
        cache = empty_cache()
        for number, layers in enumerate(zip(*(block.layers for block in found), strict=True)):
            keys, values = (torch.cat(tensors, dim=1)[None] for tensors in zip(*layers, strict=True))
            cache.update(keys, values, number)
        return cache, len(found)

    def _read(self, name: _Name, cache: DynamicCache) -> None:
        """Read the last block of ``name`` behind those in ``cache``, which it extends."""
        start, stop = len(name.token_ids) - BLOCK, len(name.token_ids)
        device = self._base.device
        self._base.hidden(
            torch.tensor([name.token_ids[start:]], device=device),
            position_ids=torch.arange(start, stop, device=device)[None],
            attention_mask=torch.ones(1, stop, dtype=torch.long, device=device),
            cache=cache,
        )

    def _keep(self, name: _Name, layers: tuple[Layer, ...]) -> None:
        if not name.owner:  # nobody could ask to have it forgotten
            return
        if name in self._blocks:
            self._drop(name)
        self._blocks[name] = Prefix(name.weights, name.token_ids[-BLOCK:], layers)
        self.num_bytes += self._blocks[name].num_bytes
        while self.num_bytes > self.max_bytes:
            self._drop(next(iter(self._blocks)))

    def _drop(self, name: _Name) -> None:
        self.num_bytes -= self._blocks.pop(name).num_bytes


def _of_cache(cache: DynamicCache, weights: Weights, token_ids: tuple[int, ...]) -> Prefix:
    """Return all that a cache of one row holds."""
    return Prefix(weights, token_ids, tuple((layer.keys[0], layer.values[0]) for layer in cache.layers))  # pyright: ignore
