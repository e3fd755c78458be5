"""Control tokens that somebody typed: kept from being read as control tokens.

A tokenizer finds its added tokens anywhere in a text. A cut *inside* every one that occurs in a message's content keeps
it from being found there, while those that the chat template writes are found as always. The cuts are marked in the
content before the template sees it, and the rendered text is encoded piece by piece. Without cuts it is encoded whole,
exactly as the tokenizer would.
"""

import re
from collections.abc import Callable, Iterable, Sequence


class ControlTokens:
    """The added tokens of a tokenizer, special or not; white space and single characters are ordinary text."""

    def __init__(self, contents: Iterable[str]):
        self._tokens = frozenset(text for text in contents if len(text) > 1 and not text.isspace())
        self._lengths: dict[str, tuple[int, ...]] = {}
        for text in self._tokens:
            self._lengths[text[0]] = tuple(sorted({*self._lengths.get(text[0], ()), len(text)}))
        starts = "".join(map(re.escape, sorted(self._lengths)))
        self._starts = re.compile(f"[{starts}]" if starts else "(?!)")

    def __contains__(self, text: object) -> bool:
        return text in self._tokens

    def cuts(self, text: str) -> list[int]:
        """Return where ``text`` has to be cut so that no piece contains a control token; one cut per occurrence."""
        found = (match.start() for match in self._starts.finditer(text))
        return [at + 1 for at in found if self._begins(text, at)]

    def _begins(self, text: str, at: int) -> bool:
        return any(text[at : at + length] in self._tokens for length in self._lengths[text[at]])

    def mark(self, contents: Sequence[str], avoid: str = "") -> tuple[list[str], str | None]:
        """Return the contents with a mark at every cut, and the mark; None where there is nothing to cut.

        The mark occurs neither in the contents nor in ``avoid``.
        """
        cuts = [self.cuts(text) for text in contents]
        if not any(cuts):
            return list(contents), None
        mark = _unused((*contents, avoid))
        return [mark.join(_pieces(text, at)) for text, at in zip(contents, cuts, strict=True)], mark


def _pieces(text: str, cuts: Sequence[int]) -> list[str]:
    return [text[start:end] for start, end in zip((0, *cuts), (*cuts, len(text)), strict=True)]


def _unused(texts: Iterable[str]) -> str:
    texts, number = tuple(texts), 0
    while any((mark := f"\ue000{number}\ue001") in text for text in texts):
        number += 1
    return mark


class PieceEncoder:
    """Encodes a text that was cut into pieces, as if it were one text.

    Args:
        encode: the tokenizer's usual encoding, without special tokens around it.
        decode: back to text.
    """

    def __init__(self, encode: Callable[[str], list[int]], decode: Callable[[list[int]], str]):
        self._encode = encode
        # SentencePiece-like tokenizers begin every text with a space that nobody wrote
        self._begins_with_space = decode(encode("b") * 2) != "bb"

    def __call__(self, pieces: Sequence[str]) -> list[int]:
        """Return the ids of the pieces; decoding them gives the joined text."""
        ids = self._encode(pieces[0])
        for piece in pieces[1:]:
            ids += self._continued(piece) if self._begins_with_space else self._encode(piece)
        return ids

    def _continued(self, piece: str) -> list[int]:
        for guard in ("\n", "x", "0"):
            head, ids = self._encode(guard), self._encode(guard + piece)
            if ids[: len(head)] == head:
                return ids[len(head) :]
        return self._encode(piece)
