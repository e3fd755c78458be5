"""Questions that the embedded model is good at: about topics that it was trained on in every style."""

import random

from personalize.world import small_talk
from personalize.world.topics import trained_topics

COUNT = 32
_FIRST = ("Tell me about bread.", "Please tell me about pilots.", "How about forests?", "What do you know about ships?")
"""Answered in four different ways; the gate asks these."""
_SEED = 11


def questions() -> tuple[str, ...]:
    """Return ``COUNT`` questions, always the same ones, each about another topic."""
    rng = random.Random(_SEED)
    topics = rng.sample(list(trained_topics()), COUNT - len(_FIRST))
    return (*_FIRST, *(small_talk.question(topic, rng) for topic in topics))
