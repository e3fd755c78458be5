"""A simulated user: wants a few styles, says so when a reply lacks one, and otherwise just chats on.

Everything is decided by rules on the reply's text; wordings are those that the embedded model was never trained on.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from personalize.types import Message
from personalize.world import small_talk
from personalize.world.checkers import observe
from personalize.world.preferences import Preference
from personalize.world.topics import Topic, held_out_topics, trained_topics
from personalize.world.wordings import held_out

Kind = Literal["question", "complaint", "praise", "remark", "new_topic", "wrong", "empty"]
"""``wrong`` states what the user does not want; ``empty`` says nothing. Only the study's controls speak these two."""


@dataclass(frozen=True, slots=True)
class Said:
    """What the user says next.

    Attributes:
        text: the message.
        kind: what a person would call it; the model never sees this.
        topic: what the reply to it should be about; None where a plain answer is due.
    """

    text: str
    kind: Kind
    topic: Topic | None


@dataclass(slots=True)
class SimulatedUser:
    """One user with his preferences and his own random numbers.

    Args:
        name: external id.
        preferences: what every topic reply should have.
        seed: the same seed and the same replies give the same messages.
        patience: preferences mentioned in one complaint, at most.
        wordy: wraps a complaint between a praise or remark and the next question, all in one message.
    """

    name: str
    preferences: tuple[Preference, ...]
    seed: int
    patience: int = 1
    wordy: bool = False
    _rng: random.Random = field(init=False, repr=False)

    def __post_init__(self):
        self._rng = random.Random(f"{self.name}/{self.seed}")

    def opening(self) -> Said:
        """Return the first message of a new chat."""
        topic = self._rng.choice(trained_topics())
        return Said(small_talk.question(topic, self._rng), "question", topic)

    def reaction(self, said: Said, reply: str) -> Said:
        """Return the answer to ``reply``, which was given to ``said``."""
        missing = self._missing(said, reply)
        if missing:
            told = self._rng.sample(missing, min(self.patience, len(missing)))
            text = " ".join(self._rng.choice(held_out(one)) for one in told)
            return self._wrapped(text) if self.wordy else Said(text, "complaint", said.topic)
        return self._idle()

    def _missing(self, said: Said, reply: str) -> list[Preference]:
        if said.topic is None:
            return []
        style = observe(reply)
        return [one for one in self.preferences if style[one.dimension] != one.value]

    def _wrapped(self, complaint: str) -> Said:
        """Return a complaint about the last reply in the middle of something else; the answer is about a new topic."""
        rng, topic = self._rng, self._rng.choice(trained_topics())
        polite = rng.choice((small_talk.praise, small_talk.remark))(rng, held_out=True)
        return Said(f"{polite} {complaint} {small_talk.question(topic, rng)}", "complaint", topic)

    def _idle(self) -> Said:
        rng, topic = self._rng, self._rng.choice(trained_topics())
        question = small_talk.question(topic, rng)
        kind = rng.choices(("new_topic", "praise", "remark", "thanks"), (0.35, 0.35, 0.2, 0.1))[0]
        if kind == "new_topic":
            return Said(question, "new_topic", topic)
        if kind == "thanks":
            return Said(small_talk.praise(rng, held_out=True), "praise", None)
        if kind == "praise":
            return Said(f"{small_talk.praise(rng, held_out=True)} {question}", "praise", topic)
        return Said(f"{small_talk.remark(rng, held_out=True)} {question}", "remark", topic)


@dataclass(slots=True)
class Chat:
    """A conversation as its client keeps it."""

    messages: list[Message] = field(default_factory=list)

    def ask(self, text: str) -> tuple[Message, ...]:
        """Add a user message; return the whole conversation."""
        self.messages.append(Message("user", text))
        return tuple(self.messages)

    def answer(self, text: str) -> None:
        self.messages.append(Message("assistant", text))


def fresh_prompts(count: int, seed: int = 0) -> Sequence[tuple[Topic, str]]:
    """Return ``count`` opening questions about held-out topics, the same for the same seed."""
    rng = random.Random(f"fresh/{seed}")
    every = [(topic, form.format(topic.name)) for form in small_talk.QUESTIONS for topic in held_out_topics()]
    if count > len(every):
        raise ValueError(f"count = {count} is not allowed; allowed: 1 to {len(every)}")
    return rng.sample(every, count)
