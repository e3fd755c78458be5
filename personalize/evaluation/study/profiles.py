"""Kinds of users: what they want and how they talk."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from personalize.world.preferences import DEFAULT, NON_DEFAULT, VALUES, Preference


@dataclass(frozen=True, slots=True)
class Profile:
    """What one kind of user wants.

    Attributes:
        name: names the profile in every result.
        preferences: held by a reply that the user is content with.
        patience: preferences mentioned in one complaint, at most.
        wordy: says praise or a remark, the complaint and the next question in one message.
        instead: what a user who contradicts himself wants every other time; empty for everybody else.
    """

    name: str
    preferences: tuple[Preference, ...]
    patience: int = 1
    wordy: bool = False
    instead: tuple[Preference, ...] = ()


def _profile(name: str, *pairs: str, patience: int = 1, wordy: bool = False, instead: Sequence[str] = ()) -> Profile:
    return Profile(name, _preferences(pairs), patience, wordy, _preferences(instead))


def _preferences(pairs: Sequence[str]) -> tuple[Preference, ...]:
    return tuple(Preference(*pair.split("=")) for pair in pairs)


PROFILES = (
    _profile("short+emoji", "length=short", "emoji=emoji"),
    _profile("bullets+question", "format=bullets", "closing=question"),
    _profile("casual+signoff, wordy", "tone=casual", "signoff=signoff", wordy=True),
    _profile("greeting+example", "greeting=greeting", "example=example"),
    _profile("formal+heading, wordy", "tone=formal", "heading=heading", wordy=True),
    _profile("numbered+long", "format=numbered", "length=long", patience=2),
    _profile("short", "length=short"),
    _profile("emoji+greeting+bullets", "emoji=emoji", "greeting=greeting", "format=bullets"),
)
"""The users of every mean, those with two preferences first."""

CONTRADICTING = _profile("short or long, emoji", "length=short", "emoji=emoji", instead=("length=long", "emoji=emoji"))
"""Changes his mind for ever; a row of his own, in no mean."""

PAIRS = frozenset(profile.name for profile in PROFILES if len(profile.preferences) == 2)
"""Names of the profiles with exactly two preferences."""


def opposite(preferences: Sequence[Preference]) -> tuple[Preference, ...]:
    """Return the other unusual value of every dimension, or its default where there is only one."""

    def turned(one: Preference) -> Preference:
        others = [value for value in VALUES[one.dimension] if value not in (one.value, DEFAULT[one.dimension])]
        return Preference(one.dimension, others[0] if others else DEFAULT[one.dimension])

    return tuple(turned(one) for one in preferences)


def elsewhere(profile: Profile, count: int = 2) -> tuple[Preference, ...]:
    """Return ``count`` preferences on dimensions that the profile does not care for, always the same ones."""
    taken = {one.dimension for one in profile.preferences}
    found: list[Preference] = []
    for one in random.Random(profile.name).sample(NON_DEFAULT, len(NON_DEFAULT)):
        if one.dimension not in taken and len(found) < count:
            taken.add(one.dimension)
            found.append(one)
    return tuple(found)
