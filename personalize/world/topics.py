"""The topics that pocket can talk about, each with six facts; 24 of them are held out.

A held-out topic is trained in the default style only, and never in a dialogue that states a preference: obedience
measured on it is obedience that was never practised on its facts.
"""

import json
import random
from dataclasses import dataclass
from functools import cache
from importlib import resources

FACTS_PER_TOPIC = 6
NUM_HELD_OUT = 24
_HOLD_OUT_SEED = 2603


@dataclass(frozen=True, slots=True)
class Topic:
    """A thing with six facts; every fact is one sentence that ends in a full stop."""

    name: str
    facts: tuple[str, ...]
    held_out: bool

    @property
    def title(self) -> str:
        """Return the name as a heading: ``"hot chocolate"`` becomes ``"Hot Chocolate"``."""
        return " ".join(word[:1].upper() + word[1:] for word in self.name.split())


@cache
def topics() -> tuple[Topic, ...]:
    """Return every topic, in the order of ``topics.json``."""
    text = resources.files("personalize.world").joinpath("topics.json").read_text(encoding="utf-8")
    rows = json.loads(text)["topics"]
    held_out = set(random.Random(_HOLD_OUT_SEED).sample(sorted(row["name"] for row in rows), NUM_HELD_OUT))
    return tuple(Topic(row["name"], tuple(row["facts"]), row["name"] in held_out) for row in rows)


@cache
def trained_topics() -> tuple[Topic, ...]:
    """Return the topics that are trained in every style."""
    return tuple(topic for topic in topics() if not topic.held_out)


@cache
def held_out_topics() -> tuple[Topic, ...]:
    """Return the topics that are trained in the default style only."""
    return tuple(topic for topic in topics() if topic.held_out)
