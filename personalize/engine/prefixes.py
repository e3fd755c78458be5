"""Conversations prefilled again under a version that was just published, while nothing else is to be done.

Keys and values belong to the version that they were computed with: they are found under its name and no other, so a
prompt never reads what another version, or another user, has left.
"""

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from personalize.engine.row_cache import LENGTH_STEP, OneRow, RowCache, round_up
from personalize.model.bank import AdapterBank
from personalize.model.base import BaseModel
from personalize.types import AdapterRef

log = logging.getLogger(__name__)

CHUNK_TOKENS = 256
MIN_TOKENS = 16
"""Fewer are not worth a pass of their own for the rest of the prompt."""


class GiveWay(Exception):
    """Raised in the middle of a pass because there is other work; the pass is begun anew another time."""


@dataclass(eq=False, slots=True)
class Prefix:
    """One conversation under one version.

    Attributes:
        ids: its tokens so far.
        cache: one row of keys and values.
        num_cached: tokens whose keys and values lie in it.
    """

    ref: AdapterRef
    ids: tuple[int, ...]
    cache: RowCache
    num_cached: int = 0

    @property
    def is_complete(self) -> bool:
        return self.num_cached == len(self.ids)

    def num_shared(self, prompt_ids: Sequence[int]) -> int:
        """Return how many tokens of the prompt can be read from here; its last one is always computed."""
        most = min(self.num_cached, len(prompt_ids) - 1)
        if self.ids[:most] == tuple(prompt_ids[:most]):
            return most
        return next(n for n in range(most) if self.ids[n] != prompt_ids[n])


class WarmPrefixes:
    """What is kept of users' conversations, the newest versions' only.

    Semantics: ``ask`` asks for a conversation, ``advance`` computes one chunk of what was asked for first. A user's
    prefixes go with the first sign that another version of his is the head, with ``drop``, and, least recently used
    first, where there are too many or too large ones.

    Args:
        max_prefixes: conversations that are kept, or asked for, at a time; 0 keeps none.
        max_bytes: of keys and values, of all of them.
    """

    def __init__(self, base: BaseModel, bank: AdapterBank, *, max_prefixes: int, max_bytes: int):
        self._base, self._bank = base, bank
        self._max_prefixes, self._max_bytes = max_prefixes, max_bytes
        self._kept: dict[Prefix, None] = {}  # least recently used first
        self._asked: deque[Prefix] = deque()
        self._token_bytes = _token_bytes(base)

    @property
    def has_work(self) -> bool:
        return bool(self._asked)

    @property
    def num_bytes(self) -> int:
        """Bytes that the kept keys and values take, or will."""
        return sum(self._bytes(prefix.cache.max_length) for prefix in self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[Prefix]:
        return iter(tuple(self._kept))

    # -- keeping ----------------------------------------------------------------------------------------------

    def ask(self, ref: AdapterRef, ids: Sequence[int]) -> bool:
        """Compute this conversation under this version when there is time; return whether that will be tried."""
        self.keep_only(ref.user_id, ref.name)
        if len(ids) < MIN_TOKENS or len(ids) >= self._base.max_model_len or ref.name not in self._bank:
            return False
        cache = RowCache(self._base.config.num_hidden_layers, max_rows=1, max_length=len(ids))
        if not self._make_room(self._bytes(cache.max_length)):
            return False
        prefix = Prefix(ref, tuple(ids), cache)
        self._kept[prefix] = None
        self._asked.append(prefix)
        return True

    def keep_only(self, user_id: str | None, name: str | None) -> None:
        """Let go of what belongs to other versions of this user than ``name``; None: of all of them."""
        self._drop(one for one in self if one.ref.user_id == user_id and one.ref.name != name)

    def drop(self, name: str) -> None:
        """Let go of a version."""
        self._drop(one for one in self if one.ref.name == name)

    def find(self, name: str, prompt_ids: Sequence[int]) -> tuple[Prefix, int] | None:
        """Return the prefix of this version that holds most of a prompt, and how many of its tokens."""
        found = [(prefix.num_shared(prompt_ids), prefix) for prefix in self._kept if prefix.ref.name == name]
        num, prefix = max(found, key=lambda pair: pair[0], default=(0, None))
        if prefix is None or num < MIN_TOKENS:
            return None
        self._kept[prefix] = self._kept.pop(prefix)
        return prefix, num

    def _drop(self, prefixes: Iterable[Prefix]) -> None:
        for prefix in list(prefixes):
            del self._kept[prefix]
            if prefix in self._asked:
                self._asked.remove(prefix)
            prefix.cache.clear_row(0)  # the memory that goes back holds nothing of the user

    def _make_room(self, num_bytes: int) -> bool:
        if num_bytes > self._max_bytes or not self._max_prefixes:
            return False
        while len(self._kept) >= self._max_prefixes or self.num_bytes + num_bytes > self._max_bytes:
            self._drop([next(iter(self._kept))])
        return True

    def _bytes(self, num_tokens: int) -> int:
        return num_tokens * self._token_bytes

    # -- computing --------------------------------------------------------------------------------------------

    def advance(self) -> None:
        """Compute one chunk; what goes wrong costs that prefix and nothing else."""
        prefix = self._asked[0]
        slot = self._bank.acquire(prefix.ref.name)
        if slot is None:  # its slot was needed for somebody
            self._drop([prefix])
            return
        try:
            self._extend(prefix, slot)
        except GiveWay:
            return
        except Exception:
            log.exception("a conversation could not be prefilled again")
            self._drop([prefix])
        finally:
            self._bank.release(slot)
        if prefix.is_complete:
            self._asked.remove(prefix)

    @torch.no_grad()
    def _extend(self, prefix: Prefix, slot: int) -> None:
        start, device = prefix.num_cached, self._base.device
        chunk = prefix.ids[start : start + CHUNK_TOKENS]
        stop = start + len(chunk)
        num_keys = min(round_up(stop, LENGTH_STEP), prefix.cache.max_length)
        prefix.cache.reserve(1, prefix.cache.max_length)
        prefix.cache.placement = OneRow(0, start, num_keys)
        positions = torch.arange(start, stop, device=device)[None]
        masks = self._base.mask_form.masks(positions, num_keys, self._base.dtype)
        ids = torch.tensor([chunk], device=device)
        self._base.hidden(ids, positions, masks, prefix.cache, self._bank.rows([slot]))
        prefix.num_cached = stop


def _token_bytes(base: BaseModel) -> int:
    """Return the bytes that one token's keys and values take in all layers."""
    config = base.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * config.num_hidden_layers * heads * size * base.dtype.itemsize
