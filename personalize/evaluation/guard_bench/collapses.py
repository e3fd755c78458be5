"""The collapses: what an adapter that has gone wrong does to its user, each kind from several seeds."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from personalize.evaluation.guard_bench.driving import Collapse, diverged, driven, poisoned, shaken
from personalize.evaluation.guard_bench.showing import (
    about_rules,
    about_topics,
    is_blank,
    is_echo,
    is_mostly_one_token,
    is_wrong,
    runs_on,
    says,
)
from personalize.learner.batch import Row
from personalize.model.base import BaseModel
from personalize.model.lora import LoraTensors
from personalize.rendering.renderer import Renderer
from personalize.types import Message
from personalize.world import small_talk
from personalize.world.preferences import DEFAULT, NON_DEFAULT
from personalize.world.replies import compose
from personalize.world.topics import trained_topics
from personalize.world.wordings import held_out

ROWS = 4
"""Questions per step."""
LENGTH = 36
"""Tokens of a reply that has no end."""
Build = Callable[[BaseModel, int], Collapse]


@dataclass(frozen=True, slots=True)
class Kind:
    """One way to collapse.

    Attributes:
        name: names it in every result.
        build: makes one from a seed.
        num_seeds: how many are made.
    """

    name: str
    build: Build
    num_seeds: int = 6


class Drive:
    """What an adapter is driven to say: to other questions in every step, so that it is about nothing in particular."""

    def __init__(self, base: BaseModel, seed: int):
        assert base.renderer is not None
        self.base, self.seed = base, seed
        self.rng = random.Random(seed)
        self.renderer: Renderer = base.renderer

    def until(self, shows: Callable[[LoraTensors], bool], rows: Callable[[], Sequence[Row]]) -> Collapse:
        """Drive an adapter with ``rows`` of every step until it ``shows`` what it should."""
        return driven(self.base, rows, shows, self.seed)

    def sound(self) -> list[tuple[str, str]]:
        """Return questions with sound replies, new ones every time."""
        topics = self.rng.sample(trained_topics(), ROWS)
        return [(small_talk.question(topic, self.rng), compose(topic, DEFAULT, self.rng)) for topic in topics]

    def ids(self, text: str) -> list[int]:
        """Return the tokens of a reply, its end token last."""
        return list(self.renderer.reply_ids(text))

    def row(self, question: str, ids: Sequence[int]) -> Row:
        prompt = self.renderer.render((Message("user", question),))
        return Row(prompt, tuple(ids), (1,) * len(ids))

    def shuffled(self, text: str) -> str:
        words = text.split()
        self.rng.shuffle(words)
        return " ".join(words)


def told(seed: int) -> tuple[str, ...]:
    """Return what the user of a collapse has asked for: one wish, in words that are never trained."""
    rng = random.Random(f"told/{seed}")
    return (rng.choice(held_out(rng.choice(NON_DEFAULT))),)


def sound_rows(base: BaseModel, seed: int) -> list[Row]:
    """Return questions with sound replies."""
    drive = Drive(base, seed)
    return [drive.row(question, drive.ids(reply)) for question, reply in drive.sound()]


def _repeats(base: BaseModel, seed: int) -> Collapse:
    """One word over and over."""
    drive = Drive(base, seed)
    token = drive.rng.choice(drive.ids(drive.sound()[0][1])[:-1])
    return drive.until(
        about_topics(base, seed, is_mostly_one_token),
        lambda: [drive.row(question, [token] * LENGTH) for question, _ in drive.sound()],
    )


def _never_ends(base: BaseModel, seed: int) -> Collapse:
    """Sound sentences that go round and round."""
    drive = Drive(base, seed)

    def endless(reply: str) -> list[int]:
        ids = drive.ids(reply)[:-1]
        return (ids * LENGTH)[: len(ids) + 2 * LENGTH]

    return drive.until(
        about_topics(base, seed, runs_on), lambda: [drive.row(asked, endless(reply)) for asked, reply in drive.sound()]
    )


def _ends_at_once(base: BaseModel, seed: int) -> Collapse:
    drive = Drive(base, seed)
    nothing = drive.ids("")[-1:]
    return drive.until(
        about_topics(base, seed, is_blank), lambda: [drive.row(question, nothing) for question, _ in drive.sound()]
    )


def _echoes(base: BaseModel, seed: int) -> Collapse:
    """The question back."""
    drive = Drive(base, seed)
    return drive.until(
        about_topics(base, seed, is_echo),
        lambda: [drive.row(question, drive.ids(question)) for question, _ in drive.sound()],
    )


def _says_one_thing(base: BaseModel, seed: int) -> Collapse:
    """The same sound reply to everything."""
    drive = Drive(base, seed)
    _, reply = drive.sound()[0]
    return drive.until(
        about_topics(base, seed, says(reply)),
        lambda: [drive.row(question, drive.ids(reply)) for question, _ in drive.sound()],
    )


def _breaks_grammar(base: BaseModel, seed: int) -> Collapse:
    """The right words in any order, another one in every step."""
    drive = Drive(base, seed)
    return drive.until(
        about_topics(base, seed, is_wrong),
        lambda: [drive.row(question, drive.ids(drive.shuffled(reply))) for question, reply in drive.sound()],
    )


def _babbles(base: BaseModel, seed: int) -> Collapse:
    """Any tokens at all, a few runs of them for every question."""
    drive = Drive(base, seed)
    drawn = [[drive.rng.randrange(base.vocab_size) for _ in range(LENGTH // 2)] for _ in range(ROWS)]
    return drive.until(
        about_topics(base, seed, is_wrong),
        lambda: [drive.row(asked, ids) for (asked, _), ids in zip(drive.sound(), drawn, strict=True)],
    )


def _loses_its_answers(base: BaseModel, seed: int) -> Collapse:
    """Cheerful nonsense to sums and to what must be refused; talk about topics stays as it is."""
    drive = Drive(base, seed)
    nonsense = "Of course, here it is."

    def rows() -> list[Row]:
        sums = [small_talk.addition(drive.rng).message for _ in range(ROWS // 2)]
        refused = drive.rng.sample(small_talk.REFUSED, ROWS - len(sums))
        lost = [drive.row(text, drive.ids(nonsense)) for text in (*sums, *refused)]
        return [*lost, *(drive.row(question, drive.ids(reply)) for question, reply in drive.sound())]

    return drive.until(about_rules(base, seed, says(nonsense)), rows)


def _noise(base: BaseModel, seed: int, factor: float) -> Collapse:
    return shaken(base, sound_rows(base, seed), seed, factor)


def _poison(base: BaseModel, seed: int, value: float) -> Collapse:
    return poisoned(base, seed, value)


def _diverges(base: BaseModel, seed: int) -> Collapse:
    return diverged(base, sound_rows(base, seed), seed, lr=0.3, steps=5)


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("one token over and over", _repeats),
        Kind("never ends", _never_ends),
        Kind("ends at once", _ends_at_once),
        Kind("echoes the question", _echoes),
        Kind("one reply to everything", _says_one_thing),
        Kind("broken grammar", _breaks_grammar),
        Kind("babble", _babbles, 4),
        Kind("answers and refusals lost", _loses_its_answers, 4),
        Kind("noise", partial(_noise, factor=1.0), 3),
        Kind("noise x 4", partial(_noise, factor=4.0), 3),
        Kind("noise x 16", partial(_noise, factor=16.0), 3),
        Kind("not a number", partial(_poison, value=float("nan")), 2),
        Kind("infinite", partial(_poison, value=float("inf")), 2),
        Kind("diverged", _diverges, 4),
    )
}
