"""Greedy replies to a few prompts at once, one window per token, with how sure the model was of each.

The engine is for users: it has no place for work that yields to everybody, and keeps no probabilities.

Shape letters: B prompts, T columns, V vocabulary.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor
from transformers import DynamicCache

from personalize.learner.batch import Row
from personalize.learner.passes import token_log_probs
from personalize.model.base import BaseModel
from personalize.model.lora import LoraTensors
from personalize.model.rows import AdapterRows
from personalize.types import Message, Window

T = TypeVar("T")


@dataclass(slots=True)
class Greedy:
    """One reply.

    Attributes:
        prompt_ids: what it answers.
        token_ids: the likeliest token at every place, a sampled end token included.
        entropies: of the distribution that each of them came from, in nats; NaN where it was none.
        ended: it ended by itself, and not at the cap.
    """

    prompt_ids: tuple[int, ...]
    token_ids: list[int] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)
    ended: bool = False

    @property
    def row(self) -> Row:
        """Prompt and reply, every token of which counts."""
        return Row(self.prompt_ids, tuple(self.token_ids), (1,) * len(self.token_ids))


def greedy_replies(
    base: BaseModel, prompts: Sequence[tuple[int, ...]], adapter: LoraTensors | None, max_tokens: int
) -> Generator[Window, None, tuple[Greedy, ...]]:
    """Return the replies to ``prompts`` under ``adapter``, of at most ``max_tokens`` each; yields after every pass.

    A reply whose distribution is not finite ends there.

    Args:
        prompts: each of at least one token.
        adapter: on the base's device; None is the base itself.
    """
    assert base.renderer is not None, "replies end with the tokens that the renderer names"
    replies = tuple(Greedy(tuple(prompt)) for prompt in prompts)
    reading = _Reading(base, prompts, adapter)
    end_ids = torch.tensor(sorted(base.renderer.end_ids), device=base.device)
    room = base.max_model_len - max(map(len, prompts))
    for _ in range(min(max_tokens, room)):
        logits_BV = reading.logits()
        entropy_B = torch.special.entr(logits_BV.softmax(-1)).sum(-1)
        token_B = logits_BV.argmax(-1)
        over_B = torch.isin(token_B, end_ids) | ~entropy_B.isfinite()
        numbers = (token_B.tolist(), entropy_B.tolist(), over_B.tolist())
        for reply, token, entropy, over in zip(replies, *numbers, strict=True):
            if not reply.ended:
                reply.token_ids.append(token)
                reply.entropies.append(entropy)
                reply.ended = over
        yield Window()
        if all(reply.ended for reply in replies):
            break
        reading.append(token_B)
    return replies


def plain_answers(
    base: BaseModel, questions: Sequence[str], max_tokens: int
) -> Generator[Window, None, tuple[tuple[Row, ...], Tensor]]:
    """Ask the base ``questions``, each in a conversation of its own; yields after every pass.

    Returns:
        Question and greedy answer of each, and the base's log-probabilities [N] of all the answers' N tokens.

    Raises:
        ContextTooLong: a question leaves no room for a single token.
    """
    assert base.renderer is not None, "questions are asked through the chat template"
    prompts = [base.renderer.render((Message("user", text),)) for text in questions]
    replies = yield from greedy_replies(base, prompts, None, max_tokens)
    rows = tuple(reply.row for reply in replies)
    base_N = token_log_probs(base, rows)
    yield Window()
    return rows, base_N


def finished(work: Generator[Window, None, T]) -> T:
    """Return what ``work`` returns, its windows back to back: for whoever has the device alone."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


class _Reading:
    """Prompts side by side, padded on the left, and what was said since; rows that have ended are read on unseen."""

    def __init__(self, base: BaseModel, prompts: Sequence[tuple[int, ...]], adapter: LoraTensors | None):
        width = max(map(len, prompts))
        padded = [[0] * (width - len(prompt)) + list(prompt) for prompt in prompts]
        seen = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        self._base = base
        self._rows = None if adapter is None else AdapterRows.of([adapter], [0] * len(prompts))
        self._cache = DynamicCache(config=base.module.config)
        self._ids_BT = torch.tensor(padded, device=base.device)
        self._mask_BT = torch.tensor(seen, device=base.device)
        self._positions_BT = (self._mask_BT.cumsum(-1) - 1).clamp(min=0)

    @torch.no_grad()
    def logits(self) -> Tensor:
        """Read what is new; return the logits of the next token, [B, V] in fp32."""
        hidden = self._base.hidden(
            self._ids_BT,
            position_ids=self._positions_BT,
            attention_mask=self._mask_BT,
            cache=self._cache,
            rows=self._rows,
        )
        return self._base.head(hidden[:, -1]).float()

    def append(self, token_B: Tensor) -> None:
        self._ids_BT = token_B[:, None]
        self._positions_BT = self._positions_BT[:, -1:] + 1
        self._mask_BT = torch.cat([self._mask_BT, torch.ones_like(self._mask_BT[:, :1])], dim=1)
