"""What happens in a simulated life: stages, each with somebody's way of talking and the turns to measure at.

The plain script is the learning curve; the others are the controls. A measurement's turn is counted from the
beginning of the control: teaching before it does not count.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from personalize.evaluation.study.people import (
    Asking,
    Complaining,
    Mistaken,
    Person,
    Praising,
    Remarking,
    Silent,
    Speaker,
)
from personalize.evaluation.study.profiles import Profile, elsewhere, opposite
from personalize.evaluation.users import SimulatedUser
from personalize.world.preferences import Preference

CHECKPOINTS = (0, 2, 5, 10, 16, 24, 32, 64, 128)
LIFE_TURNS = 500
NOISE_TURNS = 128
"""Turns of praise, remarks, questions, other complaints."""
ONE_SIDED_TURNS = 64
FLIP_COMPLAINTS = 10
MIND_TURNS = 12
"""Follow-ups between two changes of a contradicting user's mind."""
REACHED = 0.9
WRONG_SHARE = 0.2

Wishes = Callable[[Profile], tuple[Preference, ...]]


def own(profile: Profile) -> tuple[Preference, ...]:
    """Return what the profile wants."""
    return profile.preferences


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of a life.

    Attributes:
        person: makes the one who talks, from profile and seed.
        turns: follow-ups, at most.
        points: follow-ups within the stage at which to measure.
        start: added to a point to give the measurement's turn.
        end: turn of a measurement at the stage's end, whenever that comes; None: no such measurement.
        checks: follow-ups at which to look whether the joint rate is ``REACHED``; the stage then ends.
        max_complaints: the stage ends after so many complaints.
        max_per_chat: follow-ups in one chat, at most.
        wants: the preferences that are measured.
        donor: whose preferences are measured beside them.
    """

    person: Callable[[Profile, int], Person]
    turns: int
    points: tuple[int, ...] = ()
    start: int = 0
    end: int | None = None
    checks: tuple[int, ...] = ()
    max_complaints: int | None = None
    max_per_chat: int = 5
    wants: Wishes = own
    donor: Wishes | None = None

    @property
    def measured(self) -> tuple[int, ...]:
        """Turns of all its measurements."""
        return (*(self.start + point for point in self.points), *(() if self.end is None else (self.end,)))


@dataclass(frozen=True, slots=True)
class Script:
    """A life's stages.

    Attributes:
        name: of the control; empty for the plain learning curve.
        stages: one after the other, with one adapter.
        min_preferences: profiles with fewer have nothing to show here.
        contradicting: played by the user who contradicts himself, and by nobody else.
    """

    name: str
    stages: tuple[Stage, ...]
    min_preferences: int = 1
    contradicting: bool = False

    @property
    def measured(self) -> tuple[int, ...]:
        """Turns of all its measurements."""
        return tuple(turn for stage in self.stages for turn in stage.measured)

    def suits(self, profile: Profile) -> bool:
        return len(profile.preferences) >= self.min_preferences and bool(profile.instead) == self.contradicting

    def shortened(self, turns: int) -> "Script":
        """Return the same wiring with at most ``turns`` follow-ups a stage; nothing is waited for."""

        def short(stage: Stage) -> Stage:
            points = tuple(sorted({min(point, turns) for point in stage.points}))
            return replace(stage, turns=min(stage.turns, turns), points=points, checks=())

        return replace(self, stages=tuple(short(stage) for stage in self.stages))


def reacting(wishes: Wishes = own) -> Callable[[Profile, int], Person]:
    """Return the maker of ordinary users with ``wishes``, who complain where one is violated and else chat on."""

    def person(profile: Profile, seed: int) -> Person:
        return SimulatedUser(f"{profile.name}/{seed}", wishes(profile), seed, profile.patience, profile.wordy)

    return person


def speaking(kind: type[Speaker]) -> Callable[[Profile, int], Person]:
    """Return the maker of people who always say one kind of thing."""
    return lambda profile, seed: kind(profile.name, seed)


def complaining(wishes: Wishes) -> Callable[[Profile, int], Person]:
    """Return the maker of people who complain every time about some of ``wishes``."""
    return lambda profile, seed: Complaining(profile.name, seed, wishes(profile))


def plain(turns: int) -> Script:
    """Return the learning curve of ``turns`` follow-ups."""
    return Script("", (Stage(reacting(), turns, checkpoints(turns)),))


def checkpoints(turns: int) -> tuple[int, ...]:
    """Return the turns at which a life is measured: the first ones closely, then every 64, then the last."""
    every = {*CHECKPOINTS, *range(128, turns + 1, 64), turns}
    return tuple(sorted(turn for turn in every if turn <= turns))


def _taught(*stages: Stage) -> tuple[Stage, ...]:
    return (Stage(reacting(), 64, checks=(24, 32, 48, 64)), *stages)


def _unlearning(name: str, person: Callable[[Profile, int], Person]) -> Script:
    return Script(name, _taught(Stage(person, NOISE_TURNS, (0, NOISE_TURNS))))


def _fresh(name: str, kind: type[Speaker], max_per_chat: int = 5) -> Script:
    return Script(name, (Stage(speaking(kind), NOISE_TURNS, (NOISE_TURNS,), max_per_chat=max_per_chat),))


def _shuffle(name: str, donor: Wishes) -> Script:
    return Script(name, (Stage(reacting(donor), 64, checkpoints(64), donor=donor),))


def _sequence() -> Script:
    def wish(place: int) -> Wishes:
        return lambda profile: (_three(profile)[place],)

    stages = [Stage(reacting(wish(i)), 24, (24,), start=24 * i, wants=_three) for i in range(3)]
    return Script("sequence", tuple(stages))


def _three(profile: Profile) -> tuple[Preference, ...]:
    return (*profile.preferences, *elsewhere(profile))[:3]


def _opposite(profile: Profile) -> tuple[Preference, ...]:
    return opposite(profile.preferences)


def _first(profile: Profile) -> tuple[Preference, ...]:
    return profile.preferences[:1]


def _instead(profile: Profile) -> tuple[Preference, ...]:
    return profile.instead


def _contradiction() -> Script:
    minds = (own, _instead, own, _instead)
    stages = [
        Stage(reacting(mind), MIND_TURNS, (MIND_TURNS,), start=MIND_TURNS * i, wants=mind)
        for i, mind in enumerate(minds)
    ]
    return Script("contradiction", tuple(stages), contradicting=True)


def _mistaken(profile: Profile, seed: int) -> Person:
    user = reacting()(profile, seed)
    assert isinstance(user, SimulatedUser)
    return Mistaken(user, WRONG_SHARE)


def _flip() -> Script:
    turned = Stage(
        reacting(_opposite), 40, (0,), end=FLIP_COMPLAINTS, max_complaints=FLIP_COMPLAINTS, wants=_opposite, donor=own
    )
    return Script("flip", _taught(turned))


def _one_sided() -> Script:
    stage = Stage(complaining(_first), ONE_SIDED_TURNS, (0, ONE_SIDED_TURNS))
    return Script("first-only", _taught(stage), min_preferences=2)


UNLEARNING = ("after-praise", "after-remarks", "after-questions", "after-other-complaints")
FRESH = ("fresh-praise", "fresh-remarks", "fresh-questions", "fresh-empty")
SHUFFLES = ("shuffle-elsewhere", "shuffle-opposite")

CONTROLS: Mapping[str, Script] = {
    script.name: script
    for script in (
        _unlearning("after-praise", speaking(Praising)),
        _unlearning("after-remarks", speaking(Remarking)),
        _unlearning("after-questions", speaking(Asking)),
        _unlearning("after-other-complaints", complaining(elsewhere)),
        _one_sided(),
        _flip(),
        _sequence(),
        _contradiction(),
        _shuffle("shuffle-elsewhere", elsewhere),
        _shuffle("shuffle-opposite", _opposite),
        _fresh("fresh-praise", Praising),
        _fresh("fresh-remarks", Remarking),
        _fresh("fresh-questions", Asking),
        _fresh("fresh-empty", Silent, max_per_chat=1),
        Script("wrong-follow-ups", (Stage(_mistaken, 24, (5, 10, 24)),)),
    )
}
"""Every control; what each must show stands in ``goals``."""

LIFE = Script("life", (Stage(reacting(), LIFE_TURNS, checkpoints(LIFE_TURNS)),))


def script(name: str, turns: int) -> Script:
    """Return the script called ``name``; empty is the learning curve of ``turns`` follow-ups."""
    return {"": plain(turns), LIFE.name: LIFE, **CONTROLS}[name]


def names() -> Sequence[str]:
    """Return the names of everything but the plain learning curve."""
    return (*CONTROLS, LIFE.name)
