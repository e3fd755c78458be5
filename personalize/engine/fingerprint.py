"""What adapters do to fixed prompts, as digests: proof that one user's update changed nobody else, bit for bit.

Shape letters: N rows (adapters x prompts), T tokens.
"""

import hashlib
from collections.abc import Sequence

import torch

from personalize.engine.engine import Engine
from personalize.errors import Overloaded
from personalize.model.bank import BASE_SLOT, AdapterBank
from personalize.model.folder import read_version
from personalize.types import AdapterRef


def fingerprints(
    engine: Engine, refs: Sequence[AdapterRef | None], prompts: Sequence[Sequence[int]]
) -> tuple[str, ...]:
    """Return one digest per adapter: SHA-256 over the bits of its next-token logits after every prompt.

    All rows are computed in *one* mixed batch out of the slots that serve replies. Equal digests mean equal bits; they
    compare only between calls with as many adapters, in the same places, and the same prompts.

    Raises:
        AdapterError: a folder cannot be loaded.
        Overloaded: every slot is pinned by running replies.
    """
    if not refs:
        return ()
    bank, slots = engine.bank, []
    try:
        for ref in refs:
            slots.append(_slot(bank, ref))
        return _digests(engine, slots, prompts)
    finally:
        for slot in slots:
            bank.release(slot)


def _slot(bank: AdapterBank, ref: AdapterRef | None) -> int:
    if ref is None:
        return BASE_SLOT
    if (slot := bank.acquire(ref.name)) is not None:
        return slot
    if bank.load(ref, read_version(ref, bank.base)) is None:
        raise Overloaded("every adapter slot is in use")
    slot = bank.acquire(ref.name)
    assert slot is not None
    return slot


@torch.no_grad()
def _digests(engine: Engine, slots: Sequence[int], prompts: Sequence[Sequence[int]]) -> tuple[str, ...]:
    base, longest = engine.base, max(map(len, prompts))
    # Padding stands on the right, where causal attention never looks.
    padded = [[*prompt, *[0] * (longest - len(prompt))] for prompt in prompts]
    ids_NT = torch.tensor(padded * len(slots), device=base.device)
    rows = engine.bank.rows([slot for slot in slots for _ in prompts])
    hidden = base.hidden(ids_NT, rows=rows)
    last = torch.tensor([len(prompt) - 1 for prompt in prompts] * len(slots), device=base.device)
    logits = base.head(hidden[torch.arange(len(last), device=base.device), last]).float().cpu()
    return tuple(hashlib.sha256(part.numpy().tobytes()).hexdigest() for part in logits.split(len(prompts)))
