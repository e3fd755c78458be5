"""People besides the ordinary simulated user: those of the controls, who say one kind of thing whatever the reply."""

import random
from abc import ABC, abstractmethod
from typing import Protocol

from personalize.evaluation.users import Said, SimulatedUser
from personalize.world import small_talk
from personalize.world.preferences import NON_DEFAULT, Preference
from personalize.world.topics import Topic, trained_topics
from personalize.world.wordings import held_out

NOTHING = "."
"""The emptiest follow-up: a blank message is refused before it can be one."""


class Person(Protocol):
    """Somebody who chats."""

    def opening(self) -> Said:
        """Return the first message of a new chat."""
        ...

    def reaction(self, said: Said, reply: str) -> Said:
        """Return the answer to ``reply``, which was given to ``said``."""
        ...


class Speaker(ABC):
    """Opens chats; what is said then is up to the subclass. The same name and seed give the same messages."""

    def __init__(self, name: str, seed: int):
        self.rng = random.Random(f"{name}/{seed}/{type(self).__name__}")

    def opening(self) -> Said:
        topic, question = self.question()
        return Said(question, "question", topic)

    @abstractmethod
    def reaction(self, said: Said, reply: str) -> Said: ...

    def question(self) -> tuple[Topic, str]:
        topic = self.rng.choice(trained_topics())
        return topic, small_talk.question(topic, self.rng)


class Praising(Speaker):
    """Praises every reply, mostly asking on in the same message."""

    def reaction(self, said: Said, reply: str) -> Said:
        text = small_talk.praise(self.rng, held_out=True)
        topic, question = self.question()
        # Praise of a mere "You are welcome." is not worth a turn: after a praise alone there is always a question.
        if said.topic is not None and self.rng.random() < 0.3:
            return Said(text, "praise", None)
        return Said(f"{text} {question}", "praise", topic)


class Remarking(Speaker):
    """Says something beside the point, mostly asking on in the same message."""

    def reaction(self, said: Said, reply: str) -> Said:
        text = small_talk.remark(self.rng, held_out=True)
        topic, question = self.question()
        if said.topic is not None and self.rng.random() < 0.3:
            return Said(text, "remark", None)
        return Said(f"{text} {question}", "remark", topic)


class Asking(Speaker):
    """Asks about something else every time; a fifth are sums and questions out of bounds."""

    def reaction(self, said: Said, reply: str) -> Said:
        topic, question = self.question()
        if self.rng.random() < 0.2:
            plain = self.rng.choice((small_talk.addition, small_talk.out_of_bounds))(self.rng)
            return Said(plain.message, "new_topic", None)
        return Said(question, "new_topic", topic)


class Silent(Speaker):
    """Follows up with next to nothing."""

    def reaction(self, said: Said, reply: str) -> Said:
        return Said(NOTHING, "empty", None)


class Complaining(Speaker):
    """Complains every time about one of a few matters, whether there is a reason or not."""

    def __init__(self, name: str, seed: int, about: tuple[Preference, ...]):
        super().__init__(name, seed)
        self.about = about

    def reaction(self, said: Said, reply: str) -> Said:
        return Said(self.rng.choice(held_out(self.rng.choice(self.about))), "complaint", said.topic)


class Mistaken(Speaker):
    """An ordinary user who in a share of the follow-ups asks for something that he does not want."""

    def __init__(self, user: SimulatedUser, share: float):
        super().__init__(user.name, user.seed)
        self.user = user
        self.share = share

    def opening(self) -> Said:
        return self.user.opening()

    def reaction(self, said: Said, reply: str) -> Said:
        meant = self.user.reaction(said, reply)
        if self.rng.random() >= self.share:
            return meant
        unwanted = [one for one in NON_DEFAULT if one not in self.user.preferences]
        return Said(self.rng.choice(held_out(self.rng.choice(unwanted))), "wrong", said.topic)
