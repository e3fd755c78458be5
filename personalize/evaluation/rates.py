"""How often a user's wishes hold on fresh chats: held-out topics, temperature 1, a question and nothing else."""

import asyncio
from collections.abc import Iterable, Sequence
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


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply to a fresh question, taken apart.

    Attributes:
        reply: as the service gave it.
        style: the value of every dimension, by rule.
        correct: it says only true facts of the topic asked about.
    """

    reply: Reply
    style: dict[str, str]
    correct: bool


async def measure(
    app: Personalizer, user: str | None, preferences: Sequence[Preference], num_prompts: int = 100, seed: int = 0
) -> Rates:
    """Ask ``num_prompts`` fresh questions as ``user`` and check the replies by rules; nothing is learned from them."""
    return rates_of(await fresh_answers(app, user, num_prompts, seed), preferences)


async def fresh_answers(
    app: Personalizer, user: str | None, num_prompts: int, seed: int = 0, context: Sequence[Message] = ()
) -> list[Answer]:
    """Return the answers to ``num_prompts`` fresh questions, the same questions and draws for the same ``seed``.

    Args:
        context: messages before every question.
    """
    prompts = fresh_prompts(num_prompts, seed)
    asked = [ask_once(app, user, text, seed + i, context) for i, (_, text) in enumerate(prompts)]
    replies = await asyncio.gather(*asked)
    return [
        Answer(reply, observe(reply.text), is_correct(topic, reply.text))
        for (topic, _), reply in zip(prompts, replies, strict=True)
    ]


def rates_of(answers: Sequence[Answer], preferences: Sequence[Preference]) -> Rates:
    """Return how often ``preferences`` hold in ``answers``."""
    held = [[answer.style[one.dimension] == one.value for one in preferences] for answer in answers]
    return Rates(
        joint=_share(all(row) for row in held),
        mean=_share(value for row in held for value in row),
        correct=_share(answer.correct for answer in answers),
        capped=_share(answer.reply.finish_reason == "length" for answer in answers),
        tokens=_share(answer.reply.usage.completion_tokens for answer in answers),
        num_prompts=len(answers),
    )


async def ask_once(app: Personalizer, user: str | None, text: str, seed: int, context: Sequence[Message] = ()) -> Reply:
    """Return the reply to ``text`` in a chat of its own, at temperature 1; nothing is learned from it."""
    sampling = SamplingParams(temperature=1.0, max_tokens=MAX_REPLY_TOKENS, seed=seed)
    request = ChatRequest(messages=(*context, Message("user", text)), user=user, sampling=sampling, learn=False)
    (reply,) = await app.complete(request)
    return reply


def _share(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values) if values else 0.0
