"""What a simulated user wants, how that is said, and the rule that tells whether a reply has it.

The rules read any chat model's text: markdown or not, with or without an opening line. A rule that could hold by
accident asks for more than one sign (two list items, ten capital letters).
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

Place = Literal["start", "rest", "end"]

_SENTENCE_GAP = re.compile(r"""(?<=[.!?])["')\]]*\s+(?=["'(\[]*[A-Z0-9*#-])""")
_LINE_END = re.compile(r"\n")
_BULLET = re.compile(r"^\s*[-*•–]\s+\S", re.MULTILINE)
_NUMBER = re.compile(r"^\s*\d+[.)]\s+\S", re.MULTILINE)
_GREETING = re.compile(r"\W*(hello|hi|hey|greetings|welcome|good (morning|afternoon|evening|day))\b", re.IGNORECASE)
_LAST_IS_QUESTION = re.compile(r"\?[^\w.!]*$")
_MIN_WORDS = 3
_MIN_LETTERS = 10
_CAPITAL_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class Wish:
    """One wish about the form of replies.

    Attributes:
        name: what it is called in the results.
        said: follow-ups that state it after a reply without it.
        asked: the same as an instruction that stands with the question.
        holds: tells whether a reply's text has it.
        place: where a reply that lacks it first goes wrong: its first word, what follows the first sentence, its end.
        excludes: names of the wishes that the same reply cannot fulfil; naming one of the two is enough.
    """

    name: str
    said: tuple[str, ...]
    asked: str
    holds: Callable[[str], bool]
    place: Place
    excludes: tuple[str, ...] = ()


def first_sentence_end(text: str) -> int:
    """Return where the first sentence of ``text`` is over: at its first line break or sentence gap, else its length."""
    start = len(text) - len(text.lstrip())
    found = (_SENTENCE_GAP.search(text, start), _LINE_END.search(text, start))
    return min((match.start() for match in found if match), default=len(text))


def _is_one_sentence(text: str) -> bool:
    text = text.strip()
    whole = first_sentence_end(text) == len(text)
    return whole and len(text.split()) >= _MIN_WORDS and re.search(r"[.!?]\W*$", text) is not None


def _is_bulleted(text: str) -> bool:
    return len(_BULLET.findall(text)) >= 2


def _is_numbered(text: str) -> bool:
    return len(_NUMBER.findall(text)) >= 2


def _greets(text: str) -> bool:
    return _GREETING.match(text) is not None


def _ends_with_question(text: str) -> bool:
    return _LAST_IS_QUESTION.search(text) is not None


def _is_in_capitals(text: str) -> bool:
    letters = [character for character in text if character.isalpha()]
    return len(letters) >= _MIN_LETTERS and sum(map(str.isupper, letters)) >= _CAPITAL_SHARE * len(letters)


WISHES = (
    Wish(
        "one sentence",
        ("Too long. Please answer in one sentence.", "One sentence is enough.", "Next time only one short sentence."),
        "Please answer in one sentence.", _is_one_sentence, "rest",
        ("bullet list", "numbered list", "greeting first", "closing question"),
    ),
    Wish(
        "bullet list",
        ("Please use bullet points.", "That should be a bullet list.", "Could you answer with bullet points?"),
        "Please use bullet points.", _is_bulleted, "start", ("numbered list",),
    ),
    Wish(
        "numbered list",
        ("Please use a numbered list.", "That should be a numbered list.", "Could you answer with a numbered list?"),
        "Please use a numbered list.", _is_numbered, "start",
    ),
    Wish(
        "greeting first",
        ("Please start with a greeting.", "You forgot to say hello.", "Could you begin with a greeting?"),
        "Please start with a greeting.", _greets, "start",
    ),
    Wish(
        "closing question",
        ("Please end with a question.", "You forgot to ask a question at the end.", "Could you end with a question?"),
        "Please end with a question.", _ends_with_question, "end",
    ),
    Wish(
        "capital letters",
        (
            "Please write in capital letters only.",
            "I can only read capital letters.",
            "Could you write everything in capital letters?",
        ),
        "Please write in capital letters only.", _is_in_capitals, "start",
    ),
)  # fmt: skip

EMPTY = "ok"
"""The idle kind that says nothing at all: what it moves is what the block's mere presence moves."""

IDLE: Mapping[str, tuple[str, ...]] = {
    EMPTY: ("ok", "Ok.", "okay"),
    "praise": ("Thank you, that was perfect!", "Great answer.", "Exactly what I needed."),
    "remark": ("It is raining here today.", "My dog is asleep.", "We had soup for dinner."),
    "other question": ("What is 7 plus 5?", "Now tell me about horses.", "What do you know about paper?"),
}
"""Kind -> follow-ups that want nothing of later replies."""
UNRELATED = ("remark", "other question")


def said(wish: Wish, number: int) -> str:
    """Return what states the wish for the time ``number``; its wordings begin anew after the last."""
    return wish.said[number % len(wish.said)]


def together(wishes: Sequence[Wish], size: int) -> Iterator[tuple[Wish, ...]]:
    """Yield every choice of ``size`` of these wishes that one reply can fulfil."""
    for chosen in combinations(wishes, size):
        excluded = {name for wish in chosen for name in wish.excludes}
        if excluded.isdisjoint(wish.name for wish in chosen):
            yield chosen
