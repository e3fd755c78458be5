"""What stands before a chat's first question: nothing, the preferences told outright, or the last follow-ups."""

import random
from collections import deque
from collections.abc import Callable
from typing import Protocol

from personalize.evaluation.study.profiles import Profile
from personalize.evaluation.users import Said
from personalize.types import Message
from personalize.world import small_talk
from personalize.world.wordings import system_prompt

LAST_K = 4
"""As many follow-ups as the default recipe tells its teacher."""


class Context(Protocol):
    """The messages before a chat, as far as the person's life has come."""

    def messages(self) -> tuple[Message, ...]: ...

    def hear(self, said: Said) -> None: ...


class Nothing:
    """A chat begins with its question."""

    def messages(self) -> tuple[Message, ...]:
        return ()

    def hear(self, said: Said) -> None:
        pass


class Told(Nothing):
    """The in-context oracle: a system prompt states every preference; the seed chooses the wording."""

    def __init__(self, profile: Profile, seed: int):
        rng = random.Random(f"oracle/{profile.name}/{seed}")
        self._messages = (Message("system", system_prompt(list(profile.preferences), rng)),)

    def messages(self) -> tuple[Message, ...]:
        return self._messages


class LastFollowUps:
    """The last follow-ups, raw and of any kind, as earlier messages of the user that were noted."""

    def __init__(self, count: int = LAST_K):
        self._texts: deque[str] = deque(maxlen=count)

    def messages(self) -> tuple[Message, ...]:
        pairs = [(Message("user", text), Message("assistant", small_talk.PROMISE)) for text in self._texts]
        return tuple(message for pair in pairs for message in pair)

    def hear(self, said: Said) -> None:
        self._texts.append(said.text)


MakeContext = Callable[[Profile, int], Context]


def nothing(profile: Profile, seed: int) -> Context:
    return Nothing()


def told(profile: Profile, seed: int) -> Context:
    return Told(profile, seed)


def last_follow_ups(profile: Profile, seed: int) -> Context:
    return LastFollowUps()
