"""Read the style of a reply from its text alone, by rules.

``observe(compose(topic, style, rng)) == style`` for every topic and style. Text that fits no value of a dimension is
observed as ``OTHER``, which no preference accepts.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from personalize.world.preferences import VALUES, Preference
from personalize.world.replies import CLOSING_QUESTIONS, EMOJI, EXAMPLE, GREETINGS, MARKERS, NUM_FACTS, SIGNOFF
from personalize.world.topics import Topic

OTHER = "other"
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=\S)")
_ITEM = {"bullets": re.compile(r"- (.+)"), "numbered": re.compile(r"\d+\. (.+)")}
_LENGTHS = {count: value for value, count in NUM_FACTS.items()}
_QUESTION_STARTS = tuple(question.split("{}")[0] for question in CLOSING_QUESTIONS)


@dataclass(frozen=True, slots=True)
class Reading:
    """A reply taken apart: its style, the sentences that should be facts, and its heading if it has one."""

    style: dict[str, str]
    body: tuple[str, ...]
    heading: str | None


def observe(reply: str) -> dict[str, str]:
    """Return the value of every dimension, or ``OTHER`` where none fits."""
    return read(reply).style


def holds(preference: Preference, reply: str) -> bool:
    """Tell whether ``reply`` has the wanted value."""
    return observe(reply)[preference.dimension] == preference.value


def all_hold(preferences: Iterable[Preference], reply: str) -> bool:
    """Tell whether ``reply`` has every wanted value."""
    style = observe(reply)
    return all(style[one.dimension] == one.value for one in preferences)


def is_correct(topic: Topic, reply: str) -> bool:
    """Tell whether the reply has a body and says nothing but facts of ``topic``, each at most once."""
    reading = read(reply)
    known = set(reading.body) <= set(topic.facts) and reading.heading in (None, topic.title)
    return bool(reading.body) and known and len(set(reading.body)) == len(reading.body)


def read(reply: str) -> Reading:
    """Take ``reply`` apart."""
    text, heading = _cut_heading(reply.strip())
    style = {dimension: values[0] for dimension, values in VALUES.items()}
    style["heading"] = style["heading"] if heading is None else "heading"
    body, examples = [], []
    for sentence, form in _sentences(text):
        _note(sentence, form, style, body, examples)
    style["length"] = _LENGTHS.get(len(body), OTHER)
    style["example"] = {0: "none", 1: "example"}.get(len(examples), OTHER)
    style["format"] = _format([form for _, form in body])
    return Reading(style, tuple(sentence for sentence, _ in body + examples), heading)


def _note(sentence: str, form: str, style: dict[str, str], body: list, examples: list) -> None:
    """File one sentence under the dimension that it shows, or under the body."""
    tone = next((value for value, marks in MARKERS.items() if sentence in marks), None)
    if sentence in EMOJI:
        style["emoji"] = "emoji"
    elif sentence in GREETINGS:
        style["greeting"] = "greeting"
    elif tone:
        style["tone"] = tone
    elif sentence == SIGNOFF:
        style["signoff"] = "signoff"
    elif sentence.startswith(_QUESTION_STARTS):
        style["closing"] = "question"
    elif sentence.startswith(EXAMPLE):
        examples.append((sentence.removeprefix(EXAMPLE).strip(), form))
    else:
        body.append((sentence, form))


def _cut_heading(text: str) -> tuple[str, str | None]:
    first, _, rest = text.partition("\n")
    return (rest, first[2:]) if first.startswith("# ") else (text, None)


def _sentences(text: str) -> list[tuple[str, str]]:
    """Return every sentence with the form of its line: a list item is one sentence."""
    found = []
    for line in text.splitlines():
        form = next((name for name, item in _ITEM.items() if item.fullmatch(line)), "prose")
        parts = _SENTENCE_END.split(line) if form == "prose" else [line.partition(" ")[2]]
        found += [(part, form) for part in parts if part.strip()]
    return found


def _format(forms: list[str]) -> str:
    return forms[0] if len(set(forms)) == 1 else OTHER
