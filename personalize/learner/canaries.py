"""A few replies of the base that any healthy adapter still finds plausible.

A wish such as "one sentence, please" moves the first token of a sentence here and there; a broken adapter moves nearly
every token. So what counts is the share of tokens that became implausible, not how far the worst one fell.

Shape letters: N tokens of all replies of all adapters.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from personalize.learner.batch import Row, collate
from personalize.learner.passes import reply_log_probs
from personalize.model.base import BaseModel
from personalize.model.lora import LoraTensors
from personalize.model.rows import AdapterRows
from personalize.types import Message

QUESTIONS = ("What is 2 plus 3?", "Thank you!", "Tell me about water.", "Can you help me?")
TOKENS_EACH = 16
"""Together at most 64 positions."""
FALL_NATS = 5.0
"""A token whose log-probability fell by more counts as lost."""


@dataclass(frozen=True, slots=True)
class Canaries:
    """The base's own greedy replies to `QUESTIONS`, and how plausible it finds their tokens.

    Attributes:
        rows: one per reply.
        base_N: the base's log-probability of every token.
    """

    rows: tuple[Row, ...]
    base_N: Tensor

    @classmethod
    def of(cls, base: BaseModel) -> Self:
        """Ask ``base``, which needs a renderer."""
        assert base.renderer is not None, "canaries are asked through the chat template"
        rows = tuple(_answer(base, base.renderer.render((Message("user", text),))) for text in QUESTIONS)
        return cls(rows, _log_probs(base, rows, None))

    def lost(self, base: BaseModel, adapters: Sequence[LoraTensors]) -> list[float]:
        """Return, for every adapter, the share of tokens that it finds implausible; 1.0 for one that is not finite."""
        count = len(self.rows)
        index = [place for place in range(len(adapters)) for _ in range(count)]
        now_N = _log_probs(base, self.rows * len(adapters), AdapterRows.of(list(adapters), index))
        fell = ~(self.base_N.repeat(len(adapters)) - now_N <= FALL_NATS)  # a NaN is a loss too
        return fell.float().view(len(adapters), -1).mean(dim=1).tolist()


@torch.no_grad()
def _answer(base: BaseModel, prompt_ids: tuple[int, ...]) -> Row:
    """Return the greedy reply, read anew for every token: sixteen short passes, once in a learner's life."""
    assert base.renderer is not None
    reply: list[int] = []
    for _ in range(TOKENS_EACH):
        ids = torch.tensor([[*prompt_ids, *reply]], device=base.device)
        reply.append(int(base.head(base.hidden(ids)[:, -1]).argmax()))
        if reply[-1] in base.renderer.end_ids:
            break
    return Row(prompt_ids, tuple(reply), (1,) * len(reply))


@torch.no_grad()
def _log_probs(base: BaseModel, rows: Sequence[Row], adapters: AdapterRows | None) -> Tensor:
    batch = collate(rows, base.device)
    return reply_log_probs(base, batch, adapters).gather(-1, batch.target_ids[:, None])[:, 0]
