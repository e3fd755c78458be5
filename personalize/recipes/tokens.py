"""The tokenizer of pocket, and dialogues as token ids.

A byte-level BPE trained on the dialogues. The chat template writes ``<|role|>\\n{content}<|end|>\\n`` for a message.

A word takes the space behind it into its token, not the one before it, and what ends a sentence stands alone. So a
sentence has the same tokens at the start of a reply, in the middle of prose and behind a dash or a number, and the one
token after it says what comes: a space, a new line or the end.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from personalize.rendering.hindsight import with_block
from personalize.world.chats import Dialogue, Message
from personalize.world.dialogues import dialogue
from personalize.world.replies import CLOSING_QUESTIONS, EMOJI, EXAMPLE, GREETINGS, MARKERS, SIGNOFF
from personalize.world.topics import topics

VOCAB_SIZE = 2_816
"""With the emoji, each of which is one token."""
MAX_TOKENS = 1_024
PAD, END = "<|pad|>", "<|end|>"
SPECIAL = (PAD, "<|system|>", "<|user|>", "<|assistant|>", END)
TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>\n{{ message.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
DECISION_WEIGHT = 8.0
"""Weight of a token that opens a sentence, a line or the end: there the style is decided.

Most tokens of a reply only spell a fact; unweighted, the few decisions drown in them. Per-position weights leave the
optimum of every position where it is.
"""
_PIECES = r"- |# |\d+\. |[^\W\d_]+(?:'[^\W\d_]+)? ?|\d ?|, ?|\s|."
_CORPUS_DIALOGUES = 20_000
_CORPUS_SEED = 7
_TITLE_COPIES = 500
"""Headings are rare in dialogues; without these, titles would be spelled letter by letter."""
_OPENINGS = (
    "- ",
    "# ",
    "1. ",
    "\n",
    " ",
    EXAMPLE,
    SIGNOFF,
    *EMOJI,
    *GREETINGS,
    *CLOSING_QUESTIONS,
    *(mark for marks in MARKERS.values() for mark in marks),
)
"""How everything begins that a style puts before, between or behind the facts."""
_WITHOUT_EMOJI = str.maketrans("", "", "".join(EMOJI))


class Target(IntEnum):
    """What is learnt where an id is a target."""

    TOKEN = 0
    """This id, among all."""
    WORD = 1
    """This id, among those that open no style."""
    ANY_WORD = 2
    """That one of those that open no style stands here, whichever."""


class Encoded(NamedTuple):
    """A dialogue as ids.

    Attributes:
        weights: how much each id counts as a target, 0 for none.
        targets: a ``Target`` each.
    """

    ids: list[int]
    weights: list[float]
    targets: list[int]


def train_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer trained on a fixed corpus of dialogues."""
    model = Tokenizer(models.BPE())
    pieces = pre_tokenizers.Split(Regex(_PIECES), behavior="isolated")
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    model.pre_tokenizer = pre_tokenizers.Sequence([pieces, bytes_])
    model.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE - len(EMOJI),
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    model.train_from_iterator(_corpus(), trainer)
    model.add_tokens(list(EMOJI))
    return PreTrainedTokenizerFast(
        tokenizer_object=model,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=list(SPECIAL[1:4]),
        chat_template=TEMPLATE,
        model_max_length=MAX_TOKENS,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


def rendered(told: Dialogue) -> tuple[Message, ...]:
    """Return the messages with the hindsight block in the last user message."""
    *before, asked, reply = told.messages
    return (*before, Message("user", with_block(asked.content, told.block)), reply)


def _corpus() -> Iterator[str]:
    rng = random.Random(_CORPUS_SEED)
    for topic in topics():
        yield from [topic.title] * _TITLE_COPIES
    for _ in range(_CORPUS_DIALOGUES):
        for message in rendered(dialogue(rng)):
            yield message.content.translate(_WITHOUT_EMOJI)


class DialogueEncoder:
    """Writes dialogues as ids, equal to the chat template; replies and their end tokens are the targets."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._newline = self._ids("\n")
        self._open = {role: self._ids(f"<|{role}|>\n") for role in ("system", "user", "assistant")}
        self._end = tokenizer.get_vocab()[END]
        self._line = lru_cache(200_000)(self._ids)
        self._closing = _closing_ids(tokenizer)
        (self._space,) = self._ids(" ")
        self._style = frozenset({self._ids(text)[0] for text in _OPENINGS} | {self._end})
        self.style_ids = sorted(self._style)

    def encode(self, told: Dialogue) -> Encoded:
        """Return the ids of ``told`` with its hindsight block."""
        weigh = {"everything": self._of_everything, "facts": self._of_facts, "style": self._of_style}[told.teaches]
        ids: list[int] = []
        weights: list[float] = []
        targets: list[int] = []
        for message in rendered(told):
            opening, body = self._open[message.role], [*self._content(message), self._end]
            counts, kinds = [0.0] * len(body), [Target.TOKEN] * len(body)
            if message.role == "assistant":
                counts, kinds = weigh(body)
            ids += opening + body + self._newline
            weights += [0.0] * len(opening) + counts + [0.0]
            targets += [Target.TOKEN] * len(opening) + kinds + [Target.TOKEN]
        return Encoded(ids, weights, targets)

    def _of_everything(self, body: Sequence[int]) -> tuple[list[float], list[Target]]:
        """Return weight and target of every token of a reply: its first and those after a closed sentence decide."""
        return [DECISION_WEIGHT if one else 1.0 for one in self._decides(body)], [Target.TOKEN] * len(body)

    def _of_style(self, body: Sequence[int]) -> tuple[list[float], list[Target]]:
        """The same where no fact is taught: nothing but the decisions, and a fact's first word is any word."""
        targets = [Target.TOKEN if token in self._style else Target.ANY_WORD for token in body]
        return [DECISION_WEIGHT if one else 0.0 for one in self._decides(body)], targets

    def _decides(self, body: Sequence[int]) -> list[bool]:
        return [True, *(before in self._closing for before in body[:-1])]

    def _of_facts(self, body: Sequence[int]) -> tuple[list[float], list[Target]]:
        """The same where no style is taught: what follows a sentence does not count, what opens one is a word."""
        opens = [True, *(before == self._space for before in body[:-1])]
        follows = [False, *(before in self._closing and before != self._space for before in body[:-1])]
        weights = [
            DECISION_WEIGHT if first else 0.0 if after else 1.0 for first, after in zip(opens, follows, strict=True)
        ]
        words = [first and token not in self._style for first, token in zip(opens, body, strict=True)]
        return weights, [Target.WORD if word else Target.TOKEN for word in words]

    def _content(self, message: Message) -> Iterable[int]:
        return self._line(message.content)

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False)


def _closing_ids(tokenizer: PreTrainedTokenizerFast) -> frozenset[int]:
    """Return the tokens after which a sentence, a line or the reply may end."""
    texts = {number: str(tokenizer.decode([number])) for number in range(len(tokenizer))}
    closing = (".", "!", "?", "\n", ":", "-", "#", *EMOJI)
    return frozenset(n for n, text in texts.items() if text == " " or text.rstrip(" ").endswith(closing))


def longest(encoded: Sequence[Encoded]) -> int:
    """Return the number of ids of the longest dialogue."""
    return max(len(one.ids) for one in encoded)
