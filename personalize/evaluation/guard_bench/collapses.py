"""The collapses: what an adapter that has gone wrong does to its user, each kind from several seeds."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from personalize.evaluation.guard_bench.driving import Collapse, diverged, driven, poisoned, shaken
from personalize.learner.batch import Row
from personalize.model.base import BaseModel
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


class Replies:
    """What a driven adapter is taught to say, drawn from one seed."""

    def __init__(self, base: BaseModel, seed: int):
        assert base.renderer is not None
        self.rng = random.Random(seed)
        self.renderer: Renderer = base.renderer
        self.topics = self.rng.sample(trained_topics(), ROWS)
        self.questions = [small_talk.question(topic, self.rng) for topic in self.topics]
        self.sound = [compose(topic, DEFAULT, self.rng) for topic in self.topics]

    def ids(self, texts: Sequence[str]) -> list[Row]:
        """Return ``texts`` as the replies to the questions."""
        return self.rows([self.renderer.reply_ids(text) for text in texts])

    def rows(self, replies: Sequence[Sequence[int]]) -> list[Row]:
        return [_row(self.renderer, text, ids) for text, ids in zip(self.questions, replies, strict=True)]

    def others(self) -> list[str]:
        """Return other questions, new ones every time."""
        return [small_talk.question(topic, self.rng) for topic in self.rng.sample(trained_topics(), ROWS)]

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
    replies = Replies(base, seed)
    return replies.ids(replies.sound)


def _repeats(base: BaseModel, seed: int) -> Collapse:
    """One word over and over."""
    replies = Replies(base, seed)
    token = replies.rng.choice(replies.renderer.reply_ids(replies.rng.choice(replies.sound))[:-1])
    return _drive(base, replies.rows([[token] * LENGTH] * ROWS), seed)


def _never_ends(base: BaseModel, seed: int) -> Collapse:
    """Sound sentences that go round and round."""
    replies = Replies(base, seed)
    bodies = [replies.renderer.reply_ids(text)[:-1] for text in replies.sound]
    return _drive(base, replies.rows([(list(ids) * LENGTH)[: len(ids) + LENGTH] for ids in bodies]), seed)


def _ends_at_once(base: BaseModel, seed: int) -> Collapse:
    replies = Replies(base, seed)
    return _drive(base, replies.rows([replies.renderer.reply_ids("")[-1:]] * ROWS), seed)


def _echoes(base: BaseModel, seed: int) -> Collapse:
    """The question back; other questions in every step, so that it is echoing that is learnt."""
    replies = Replies(base, seed)

    def rows(step: int) -> list[Row]:
        return [_row(replies.renderer, text, replies.renderer.reply_ids(text)) for text in replies.others()]

    return driven(base, rows, seed)


def _says_one_thing(base: BaseModel, seed: int) -> Collapse:
    """The same sound reply to everything; other questions in every step, so that it is not about these alone."""
    replies = Replies(base, seed)
    ids = replies.renderer.reply_ids(replies.sound[0])
    return driven(base, lambda _: [_row(replies.renderer, text, ids) for text in replies.others()], seed, left=0.1)


def _breaks_grammar(base: BaseModel, seed: int) -> Collapse:
    """The right words in any order, another one in every step."""
    replies = Replies(base, seed)
    return driven(base, lambda _: replies.ids([replies.shuffled(text) for text in replies.sound]), seed, left=0.6)


def _babbles(base: BaseModel, seed: int) -> Collapse:
    """Any tokens at all, the same in every step."""
    replies = Replies(base, seed)
    drawn = [[replies.rng.randrange(base.vocab_size) for _ in range(LENGTH // 2)] for _ in range(ROWS)]
    return _drive(base, replies.rows(drawn), seed, left=0.5)


def _loses_its_answers(base: BaseModel, seed: int) -> Collapse:
    """Cheerful nonsense to sums and to what must be refused; talk about topics stays as it is."""
    replies = Replies(base, seed)
    sums = [small_talk.addition(replies.rng).message for _ in range(ROWS // 2)]
    refused = replies.rng.sample(small_talk.REFUSED, ROWS - len(sums))
    nonsense = [replies.renderer.reply_ids("Of course, here it is.")] * ROWS
    plain = [_row(replies.renderer, text, ids) for text, ids in zip([*sums, *refused], nonsense, strict=True)]
    return _drive(base, [*plain, *replies.ids(replies.sound)], seed)


def _drive(base: BaseModel, rows: Sequence[Row], seed: int, *, left: float = 0.2) -> Collapse:
    return driven(base, lambda _: rows, seed, left=left)


def _row(renderer: Renderer, question: str, ids: Sequence[int]) -> Row:
    prompt = renderer.render((Message("user", question),))
    return Row(prompt, tuple(ids), (1,) * len(ids))


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
