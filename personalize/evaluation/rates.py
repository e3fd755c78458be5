"""How often a user's wishes hold on fresh chats: held-out topics, temperature 1, a question and nothing else."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from personalize.evaluation.users import fresh_prompts
from personalize.service import Personalizer
from personalize.types import ChatRequest, Message, Reply, SamplingParams
from personalize.world.checkers import is_correct, observe
from personalize.world.preferences import Preference

MAX_REPLY_TOKENS = 192
"""Longer than any healthy reply of the embedded model; what reaches it has run away."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Rates over the same fresh prompts.

    Attributes:
        joint: share of replies in which all preferences hold (the preference rate).
        mean: mean over the preferences of the share in which each holds.
        correct: share of replies that say only true facts of the topic asked about.
        capped: share that ran into the token cap.
        tokens: mean reply length in tokens.
        num_prompts: how many replies.
    """

    joint: float
    mean: float
    correct: float
    capped: float
    tokens: float
    num_prompts: int


async def measure(
    app: Personalizer, user: str | None, preferences: Sequence[Preference], num_prompts: int = 100, seed: int = 0
) -> Rates:
    """Ask ``num_prompts`` fresh questions as ``user`` and check the replies by rules; nothing is learned from them."""
    prompts = fresh_prompts(num_prompts, seed)
    replies = await asyncio.gather(*[_ask(app, user, text, seed + i) for i, (_, text) in enumerate(prompts)])
    held = [[observe(reply.text)[one.dimension] == one.value for one in preferences] for reply in replies]
    return Rates(
        joint=_share(all(row) for row in held),
        mean=_share(value for row in held for value in row),
        correct=_share(is_correct(topic, reply.text) for (topic, _), reply in zip(prompts, replies, strict=True)),
        capped=_share(reply.finish_reason == "length" for reply in replies),
        tokens=sum(reply.usage.completion_tokens for reply in replies) / num_prompts,
        num_prompts=num_prompts,
    )


async def _ask(app: Personalizer, user: str | None, text: str, seed: int) -> Reply:
    sampling = SamplingParams(temperature=1.0, max_tokens=MAX_REPLY_TOKENS, seed=seed)
    request = ChatRequest(messages=(Message("user", text),), user=user, sampling=sampling, learn=False)
    (reply,) = await app.complete(request)
    return reply


def _share(values) -> float:
    values = list(values)
    return sum(values) / len(values) if values else 0.0
