"""A chat under construction: whose turn it is, which style holds, what the last topic was."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from personalize.world import small_talk, wordings
from personalize.world.preferences import DEFAULT, NON_DEFAULT, PREFERENCES, VALUES, Preference, Style, styled
from personalize.world.replies import compose
from personalize.world.topics import Topic

_DEFAULT_SHARE = 0.15
"""How often a wish asks for what is so anyway, against one that asks for something else."""
_WEIGHTS = {one: _DEFAULT_SHARE if one.is_default else 1.0 for one in PREFERENCES}
_LEADS = ("Okay.", "Now something else.", "Next question.")


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a chat."""

    role: str
    content: str


Taught = Literal["everything", "facts", "style"]


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A training dialogue; it ends with a reply.

    Attributes:
        block: the follow-ups of the hindsight block that the last user message carries, if there are any.
        teaches: what the replies are examples of: everything in them; facts, and of no style; or a style, and of no
            facts.
    """

    messages: tuple[Message, ...]
    block: tuple[str, ...] = ()
    teaches: Taught = "everything"


def base_style(rng: random.Random, spread: float) -> dict[str, str]:
    """Return the default style, in which each other value stands with probability ``spread``."""
    drawn = [preference for preference in NON_DEFAULT if rng.random() < spread]
    rng.shuffle(drawn)
    return styled(DEFAULT, drawn)


@dataclass
class Chat:
    """Messages so far, and the style that the next reply about a topic has."""

    rng: random.Random
    topics: Sequence[Topic]
    style: Style = field(default_factory=lambda: DEFAULT)
    messages: list[Message] = field(default_factory=list)
    subject: Topic | str = ""
    """What the last user message calls for: a topic, or the one plain answer."""
    start: int = 0
    """The fact of the topic that a reply begins with; it depends on how the question was put."""
    last_topic: Topic | None = None

    def preference(self) -> Preference:
        """Draw something to want: often a change of what is not the default now."""
        unusual = [one for one in NON_DEFAULT if self.style[one.dimension] == one.value]
        if unusual and self.rng.random() < 0.4:
            dimension = self.rng.choice(unusual).dimension
            others = [value for value in VALUES[dimension] if value != self.style[dimension]]
            return Preference(dimension, self.rng.choice(others))
        return self.rng.choices(tuple(_WEIGHTS), tuple(_WEIGHTS.values()))[0]

    def preferences(self, count: int) -> list[Preference]:
        """Draw ``count`` preferences; rarely two of them are about one dimension."""
        found: list[Preference] = []
        while len(found) < count:
            one = self.preference()
            if self.rng.random() < 0.1 or one.dimension not in {other.dimension for other in found}:
                found.append(one)
        return found

    def instruct(self, told: list[Preference]) -> None:
        """Open the chat with a system prompt that states ``told``."""
        self.messages.append(Message("system", wordings.system_prompt(told, self.rng)))
        self.style = styled(self.style, told)

    def ask(self, prefix: str = "", told: Sequence[Preference] = ()) -> None:
        """Ask about a new topic, perhaps after ``prefix`` and with preferences in the question itself."""
        topic = self.rng.choice([topic for topic in self.topics if topic is not self.last_topic])
        said = [wordings.say(one, self.rng) for one in told]
        asked, self.start = small_talk.asked(topic, self.rng)
        parts = [prefix, *said, asked] if self.rng.random() < 0.7 else [prefix, asked, *said]
        self._say(" ".join(part for part in parts if part), topic)
        self.style = styled(self.style, told)

    def ask_on(self) -> None:
        """Ask about a new topic, often after a praise or a remark."""
        draws = (small_talk.praise(self.rng), small_talk.remark(self.rng), self.rng.choice(_LEADS))
        self.ask(self.rng.choice(draws) if self.rng.random() < 0.4 else "")

    def complain(self, told: Sequence[Preference]) -> None:
        """State preferences and nothing else: the last topic is told again, or the wish is noted."""
        text = " ".join(wordings.say(one, self.rng) for one in told)
        self._say(text, self.last_topic or small_talk.PROMISE)
        self.style = styled(self.style, told)

    def chat_on(self) -> None:
        """Say something whose answer has no style."""
        plain = small_talk.plain_turn(self.topics, self.rng)
        self._say(plain.message, plain.answer)

    def reply(self, style: Style | None = None) -> None:
        """Answer the last message, in ``style`` instead of the chat's own if given."""
        subject = self.subject
        text = (
            subject if isinstance(subject, str) else compose(subject, style or self.style, self.rng, start=self.start)
        )
        self.messages.append(Message("assistant", text))

    def _say(self, text: str, subject: Topic | str) -> None:
        self.messages.append(Message("user", text))
        self.subject = subject
        self.last_topic = self.last_topic if isinstance(subject, str) else subject
