"""Questions that a model is good at: a file of its folder, or a few that every assistant is asked."""

import json
from collections.abc import Sequence
from pathlib import Path

from personalize.errors import ModelError

FILE = "probes.json"
MAX_PROBES = 1000
PROBES = (
    "Tell me about water.",
    "How do I boil an egg?",
    "Why do people sleep?",
    "What should I see in Paris?",
    "How does a bicycle stay upright?",
    "What is inflation?",
    "How can I learn to cook?",
    "Why is the sky blue?",
    "What makes a good book?",
    "How do plants grow?",
    "Tell me about the moon.",
    "How do I write a letter of thanks?",
    "What is a computer program?",
    "Why do we have seasons?",
    "How can I save money?",
    "What is good about walking?",
    "Tell me about coffee.",
    "How do airplanes fly?",
    "What should I know before I get a dog?",
    "Why do cities have parks?",
    "How do I plan a birthday party?",
    "What is democracy?",
    "Tell me about the history of trains.",
    "How do I remove a stain from a shirt?",
    "What is music made of?",
    "Why do leaves change their color?",
    "How can I sleep better?",
    "What is the use of mathematics?",
    "Tell me about penguins.",
    "How do I start a small garden?",
    "What do doctors do?",
    "Why is exercise healthy?",
)
"""Answered at length by any chat model, each in another way. The gate asks the first few, rehearsals draw from all."""


def read_probes(folder: Path) -> tuple[str, ...]:
    """Return the questions in ``folder``'s ``probes.json``, a JSON list of strings; ``PROBES`` where there is none.

    A model that knows little of the world brings its own: what it says of anything else is noise.

    Raises:
        ModelError: the file holds something else, fewer than two questions, or more than ``MAX_PROBES``.
    """
    path = folder / FILE
    if not path.is_file():
        return PROBES
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{FILE} is no JSON: {error}") from error
    questions = isinstance(found, list) and all(isinstance(one, str) and one.strip() for one in found)
    if not questions or not 2 <= len(found) <= MAX_PROBES:
        raise ModelError(f"{FILE} holds {str(found)[:80]!r}; allowed: a list of 2 to {MAX_PROBES} questions")
    return tuple(found)


def write_probes(folder: Path, questions: Sequence[str]) -> None:
    """Write what ``read_probes`` reads."""
    (folder / FILE).write_text(json.dumps(list(questions), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
