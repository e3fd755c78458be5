"""Write a reply about a topic in a style.

A reply is an optional heading line, a lead (greeting, tone marker), the facts as prose or as list lines, an example,
and a tail (closing question, sign-off, emoji). Prose keeps all but the heading on one line; a list gives the lead, the
example and the tail lines of their own.
"""

import random

from personalize.world.preferences import Style
from personalize.world.topics import Topic

NUM_FACTS = {"short": 1, "normal": 3, "long": 5}
EMOJI = ("😊", "🎉", "👍")
GREETINGS = ("Hello there!", "Hi there!")
MARKERS = {
    "casual": ("Okay, here is the fun part.", "So, here is the cool stuff."),
    "formal": ("Allow me to explain.", "Permit me to inform you."),
}
CLOSING_QUESTIONS = ("Would you like to know more about {}?", "Shall I tell you more about {}?")
EXAMPLE = "For example:"
SIGNOFF = "Best wishes, Pocket."


def compose(topic: Topic, style: Style, rng: random.Random, *, start: int | None = None) -> str:
    """Return a reply about ``topic`` that holds every value of ``style``.

    *Semantics*: the facts follow one another in the topic's cyclic order from a random first one; an example is the
    fact after them and does not count towards the length.
    """
    start = rng.randrange(len(topic.facts)) if start is None else start
    facts = (topic.facts[start:] + topic.facts[:start])[: NUM_FACTS[style["length"]] + 1]
    body = [_item(style["format"], place, fact) for place, fact in enumerate(facts[:-1], 1)]
    example = [f"{EXAMPLE} {facts[-1]}"] if style["example"] == "example" else []
    blocks = [_lead(style, rng), *body, *example, _tail(topic, style, rng)]
    text = (" " if style["format"] == "prose" else "\n").join(block for block in blocks if block)
    return f"# {topic.title}\n{text}" if style["heading"] == "heading" else text


def _item(form: str, place: int, fact: str) -> str:
    return {"prose": "", "bullets": "- ", "numbered": f"{place}. "}[form] + fact


def _lead(style: Style, rng: random.Random) -> str:
    parts = [rng.choice(GREETINGS)] if style["greeting"] == "greeting" else []
    parts += [rng.choice(MARKERS[style["tone"]])] if style["tone"] in MARKERS else []
    return " ".join(parts)


def _tail(topic: Topic, style: Style, rng: random.Random) -> str:
    parts = [rng.choice(CLOSING_QUESTIONS).format(topic.name)] if style["closing"] == "question" else []
    parts += [SIGNOFF] if style["signoff"] == "signoff" else []
    parts += [rng.choice(EMOJI)] if style["emoji"] == "emoji" else []
    return " ".join(parts)
