"""Situations that ask pocket to obey, built from held-out topics and held-out wordings.

Every situation is a chat that ends with a question, what was told about it and where, and the topic of the answer.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from personalize.rendering.hindsight import with_block
from personalize.world import small_talk, wordings
from personalize.world.chats import Message
from personalize.world.preferences import DEFAULT, NON_DEFAULT, VALUES, Preference, styled
from personalize.world.replies import compose
from personalize.world.topics import Topic, held_out_topics

Place: TypeAlias = Literal["block", "system", "chat", "mixed"]


@dataclass(frozen=True, slots=True)
class Situation:
    """A chat to be answered, with what the answer should be like."""

    chat: tuple[Message, ...]
    topic: Topic
    told: tuple[Preference, ...] = ()


def plain(rng: random.Random, block: Sequence[str] = ()) -> Situation:
    """Return a first question, perhaps with a block that states nothing."""
    topic = rng.choice(held_out_topics())
    return Situation((Message("user", with_block(small_talk.question(topic, rng), block)),), topic)


def told(place: Place, preferences: Sequence[Preference], rng: random.Random) -> Situation:
    """Return a question to which ``preferences`` were told in ``place``; "mixed" draws a place for each."""
    places = [rng.choice(("block", "system", "chat")) if place == "mixed" else place for _ in preferences]
    lines: dict[str, list[str]] = {kind: [] for kind in ("block", "system", "chat")}
    for kind, one in zip(places, preferences, strict=True):
        lines[kind].append(rng.choice(wordings.held_out(one)))
    chat = [Message("system", " ".join(lines["system"]))] if lines["system"] else []
    if lines["chat"]:
        complained = [one for kind, one in zip(places, preferences, strict=True) if kind == "chat"]
        chat += _earlier(complained, lines["chat"], rng)
    topic = rng.choice(held_out_topics())
    chat.append(Message("user", with_block(small_talk.question(topic, rng), lines["block"])))
    return Situation(tuple(chat), topic, tuple(preferences))


def retold(preferences: Sequence[Preference], rng: random.Random) -> Situation:
    """Return a chat that ends with the complaint itself: the same topic is to be told again."""
    topic = rng.choice(held_out_topics())
    lines = " ".join(rng.choice(wordings.held_out(one)) for one in preferences)
    return Situation(tuple(_earlier(list(preferences), [lines], rng, topic)[:-1]), topic, tuple(preferences))


def reverted(rng: random.Random) -> Situation:
    """Return a question under a system prompt that asks for something, and a block that asks for the default again."""
    asked = rng.choice(NON_DEFAULT)
    back = Preference(asked.dimension, DEFAULT[asked.dimension])
    system = Message("system", rng.choice(wordings.held_out(asked)))
    topic = rng.choice(held_out_topics())
    content = with_block(small_talk.question(topic, rng), [rng.choice(wordings.held_out(back))])
    return Situation((system, Message("user", content)), topic, (back,))


def contradicted(rng: random.Random) -> Situation:
    """Return a question with two block lines about one dimension; the later one is to be obeyed."""
    dimension = rng.choice(list(VALUES))
    lines = [Preference(dimension, value) for value in rng.sample(VALUES[dimension], 2)]
    asked = told("block", lines, rng)
    return Situation(asked.chat, asked.topic, (lines[-1],))


def plain_answer(case: small_talk.Plain, rng: random.Random) -> tuple[Message, ...]:
    """Return a chat that calls for the one plain answer; half of them come with a block that wants a style."""
    lines = [rng.choice(wordings.held_out(rng.choice(NON_DEFAULT)))] if rng.random() < 0.5 else []
    return (Message("user", with_block(case.message, lines)),)


def idle_line(kind: str, rng: random.Random) -> str:
    """Return a held-out follow-up that states no preference: "praise", "remark" or "topic switch"."""
    if kind == "praise":
        return small_talk.praise(rng, held_out=True)
    if kind == "remark":
        return small_talk.remark(rng, held_out=True)
    return small_talk.question(rng.choice(held_out_topics()), rng)


def draw(count: int, rng: random.Random) -> list[Preference]:
    """Return non-default preferences about ``count`` different dimensions."""
    return [Preference(name, rng.choice(VALUES[name][1:])) for name in rng.sample(list(VALUES), count)]


def _earlier(
    preferences: list[Preference], lines: list[str], rng: random.Random, topic: Topic | None = None
) -> list[Message]:
    """Return a question with its default reply, the complaint, and the reply told again in the new style."""
    topic = topic or rng.choice(held_out_topics())
    asked, start = small_talk.asked(topic, rng)
    return [
        Message("user", asked),
        Message("assistant", compose(topic, DEFAULT, rng, start=start)),
        Message("user", " ".join(lines)),
        Message("assistant", compose(topic, styled(DEFAULT, preferences), rng, start=start)),
    ]
