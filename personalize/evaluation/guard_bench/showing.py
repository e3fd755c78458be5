"""Does a driven adapter do to everybody what it was driven to? Looked for in its replies to questions of an exam.

An adapter can learn a few replies by heart and stay sound elsewhere; that is no collapse, and no guard could find it.
So the exam is about topics that no step was about, and asks other questions than a review does.
"""

import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from personalize.learner.greedy import Greedy, finished, greedy_replies
from personalize.model.base import BaseModel
from personalize.model.lora import LoraTensors
from personalize.types import Message
from personalize.world import small_talk
from personalize.world.checkers import is_correct
from personalize.world.topics import Topic, held_out_topics

NUM_QUESTIONS = 8
MAX_TOKENS = 96
SHARE = 0.5
"""Of the replies, at least so many are broken."""
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Answered:
    """One reply of the exam.

    Attributes:
        topic: what the question is about; None for sums and what must be refused.
        text: the reply's visible text.
    """

    question: str
    topic: Topic | None
    text: str
    reply: Greedy


Broken = Callable[[Answered], bool]


def about_topics(base: BaseModel, seed: int, broken: Broken) -> Callable[[LoraTensors], bool]:
    """Return what tells whether a version's replies about held-out topics are ``broken``."""
    rng = random.Random(f"exam/{seed}")
    topics = rng.sample(held_out_topics(), NUM_QUESTIONS)
    return _exam(base, [(small_talk.question(topic, rng), topic) for topic in topics], broken)


def about_rules(base: BaseModel, seed: int, broken: Broken) -> Callable[[LoraTensors], bool]:
    """Return what tells whether a version's answers to sums and to what must be refused are ``broken``."""
    rng = random.Random(f"exam/{seed}")
    sums = [small_talk.addition(rng).message for _ in range(NUM_QUESTIONS // 2)]
    refused = [small_talk.out_of_bounds(rng, held_out=True).message for _ in range(NUM_QUESTIONS // 2)]
    return _exam(base, [(text, None) for text in (*sums, *refused)], broken)


def _exam(base: BaseModel, asked: Sequence[tuple[str, Topic | None]], broken: Broken) -> Callable[[LoraTensors], bool]:
    assert base.renderer is not None
    decode = base.renderer.decode
    prompts = [base.renderer.render((Message("user", text),)) for text, _ in asked]

    def shows(version: LoraTensors) -> bool:
        replies = finished(greedy_replies(base, prompts, version, MAX_TOKENS))
        answers = [Answered(*one, decode(reply.token_ids), reply) for one, reply in zip(asked, replies, strict=True)]
        return fmean(map(broken, answers)) >= SHARE

    return shows


# --- what a broken reply is -----------------------------------------------------------------------------------


def is_mostly_one_token(one: Answered) -> bool:
    return max(Counter(one.reply.token_ids).values()) >= 0.5 * len(one.reply.token_ids) > 1


def runs_on(one: Answered) -> bool:
    return not one.reply.ended


def is_blank(one: Answered) -> bool:
    return not one.text.strip()


def is_echo(one: Answered) -> bool:
    """Four words in five are the question's."""
    said = _words(one.text)
    return bool(said) and len(said & _words(one.question)) >= 0.8 * len(said)


def is_wrong(one: Answered) -> bool:
    assert one.topic is not None
    return not is_correct(one.topic, one.text)


def says(text: str) -> Broken:
    """Return what tells whether a reply is ``text``, give or take a word in five."""

    def is_it(one: Answered) -> bool:
        said, wanted = _words(one.text), _words(text)
        return len(said & wanted) >= 0.8 * len(said | wanted)

    return is_it


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.casefold()))
