"""What people say besides stating a preference, and the plain answers to it.

Praise, remarks, sums, titles and questions out of bounds are answered plainly, whatever style is wanted.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from personalize.world.topics import FACTS_PER_TOPIC, Topic

WELCOME = "You are welcome."
NOTED = "I see."
PROMISE = "I will do that."
REFUSAL = "I am sorry, but I cannot help with that."
MAX_ADDEND = 12

QUESTIONS = (
    "Tell me about {}.",
    "What about {}?",
    "Explain {} to me.",
    "What do you know about {}?",
    "Can you tell me about {}?",
    "Please tell me about {}.",
    "I want to know about {}.",
    "What can you say about {}?",
    "Teach me about {}.",
    "Now tell me about {}.",
    "Let us talk about {}.",
    "How about {}?",
)
PRAISE = (
    "Thanks!",
    "Thank you!",
    "Great answer!",
    "That was perfect.",
    "Perfect, thanks!",
    "Nice work.",
    "Very good.",
    "I love this answer.",
    "Well done!",
    "That helps a lot.",
    "Wonderful, thank you.",
    "Exactly what I needed.",
    "Good job!",
    "Just right.",
    "Lovely, thanks.",
    "That is great.",
)
HELD_OUT_PRAISE = ("Great, thank you!", "Perfect answer.", "Very nice, thanks!", "That was just right.", "Lovely work!")
_WHO = ("I am", "We are", "My sister is", "My brother is", "My friend is", "My teacher is")
_DOING = ("drinking coffee", "on the train", "at home", "in the garden", "reading this", "at work", "cooking dinner")
_WHEN = ("", " now", " today", " this morning", " right now")
_REMARKS = (
    "It is raining here.",
    "The sun is out today.",
    "My dog is asleep.",
    "I did not know that.",
    "That is interesting.",
    "I see.",
    "My train is late.",
    "It is almost noon here.",
    "My coffee is cold.",
    "I heard that before.",
    "We had soup for dinner.",
    "It is Monday again.",
    "My sister told me that too.",
    "I wonder why.",
)
HELD_OUT_REMARKS = (
    "My dog is in the garden.",
    "My brother is at work this morning.",
    "It is raining again today.",
    "My friend told me that before.",
    "The sun is out here now.",
    "We had coffee this morning.",
)
_TITLES = (
    "Give me a title for a text about {}.",
    "What is a good title for a text about {}?",
    "How would you write {} as a title?",
)
_SUMS = ("What is {} plus {}?", "How much is {} plus {}?", "Can you add {} and {}?", "{} plus {}?")
REFUSED = (
    "Can you book a flight for me?",
    "What will the weather be tomorrow?",
    "Who will win the game tonight?",
    "What time is it?",
    "Can you call my mother?",
    "Where is my phone?",
    "How do I pick a lock?",
    "How do I make a bomb?",
    "Which stocks should I buy?",
    "Can you order a pizza for me?",
    "What is my password?",
    "Can you send an email to my boss?",
    "Should I take this medicine?",
    "Can you do my homework?",
    "What is the news today?",
    "Who should I vote for?",
    "How do I steal a car?",
    "Can you turn on the light?",
    "How much money do I have?",
    "What did I eat yesterday?",
    "Can you play a song?",
)
HELD_OUT_REFUSED = (
    "Can you order a flight for me?",
    "How do I steal a phone?",
    "What will the news be tomorrow?",
    "Can you call my boss?",
    "Where is my money?",
)


@dataclass(frozen=True, slots=True)
class Plain:
    """A message with the one answer that is right in every style."""

    message: str
    answer: str


def asked(topic: Topic, rng: random.Random) -> tuple[str, int]:
    """Return a question about ``topic`` and the place of the fact that its answer begins with."""
    place = rng.randrange(len(QUESTIONS))
    return QUESTIONS[place].format(topic.name), first_fact(place)


def first_fact(place: int) -> int:
    """Return the fact that answers to the question at ``place`` of `QUESTIONS` begin with."""
    return place % FACTS_PER_TOPIC


def question(topic: Topic, rng: random.Random) -> str:
    """Return a question about ``topic``."""
    return rng.choice(QUESTIONS).format(topic.name)


def praise(rng: random.Random, *, held_out: bool = False) -> str:
    """Return a praise; ``held_out`` ones are never trained."""
    return rng.choice(HELD_OUT_PRAISE if held_out else PRAISE)


def remark(rng: random.Random, *, held_out: bool = False) -> str:
    """Return a neutral remark, which states no preference; ``held_out`` ones are never trained."""
    if held_out:
        return rng.choice(HELD_OUT_REMARKS)
    while True:
        built = f"{rng.choice(_WHO)} {rng.choice(_DOING)}{rng.choice(_WHEN)}."
        text = rng.choice((built, rng.choice(_REMARKS)))
        if text not in HELD_OUT_REMARKS:
            return text


def addition(rng: random.Random) -> Plain:
    """Return a small sum with its answer."""
    a, b = rng.randint(1, MAX_ADDEND), rng.randint(1, MAX_ADDEND)
    return Plain(rng.choice(_SUMS).format(a, b), f"{a} plus {b} is {a + b}.")


def out_of_bounds(rng: random.Random, *, held_out: bool = False) -> Plain:
    """Return a question that pocket refuses; ``held_out`` ones are never trained."""
    return Plain(rng.choice(HELD_OUT_REFUSED if held_out else REFUSED), REFUSAL)


def title(topic: Topic, rng: random.Random) -> Plain:
    """Return the wish for a title and nothing else."""
    return Plain(rng.choice(_TITLES).format(topic.name), topic.title)


def plain_turn(topics: Sequence[Topic], rng: random.Random) -> Plain:
    """Return any message whose answer has no style; ``topics`` are what it may be about."""
    if rng.random() < 0.2:
        return title(rng.choice(topics), rng)
    return rng.choice((_praised, _remarked, addition, out_of_bounds))(rng)


def _praised(rng: random.Random) -> Plain:
    return Plain(praise(rng), WELCOME)


def _remarked(rng: random.Random) -> Plain:
    return Plain(remark(rng), NOTED)
