"""Token ids to text, one at a time."""

from collections.abc import Callable, Sequence

_BROKEN = "\ufffd"  # how a decoder shows bytes that are not (yet) a character
_MAX_PENDING = 16  # a character has at most four bytes; more pending tokens than this are not waiting for one
_MAX_SILENT = 16


class TextStream:
    """Gives out the text of a sequence as soon as its characters are whole.

    Only the tokens since the last output and those of the output before it are decoded again: decoders treat a token
    by what stands before it (leading space, byte runs), and that much context is enough.

    Args:
        decode: ids to text; ids that show nothing give nothing.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]):
        self._decode = decode
        self._window: list[int] = []
        self._num_context = 0  # ids at the front of the window whose text was given out
        self._shown = 0  # characters that these make at the front of the window's text

    @property
    def pending(self) -> bool:
        """Whether the newest tokens end inside a character."""
        return self._num_context < len(self._window)

    def feed(self, token_id: int) -> str:
        """Return the text that became whole."""
        self._window.append(token_id)
        text = self._decode(self._window)
        if not text.endswith(_BROKEN) or len(text) <= self._shown:
            return self._give(text, len(self._window))
        if len(self._window) - self._num_context > _MAX_PENDING:
            return self._give_broken(text)
        return ""

    def flush(self) -> str:
        """Return the rest, unfinished characters as U+FFFD."""
        return self._give(self._decode(self._window), len(self._window)) if self.pending else ""

    def _give(self, text: str, upto: int) -> str:
        given = text[self._shown :]
        if not given:  # keeps the context: a token without text must not become the beginning of one
            del self._window[max(self._num_context, _MAX_SILENT) :]
            self._num_context = len(self._window)
            return ""
        del self._window[: self._num_context]
        self._num_context = upto - self._num_context
        self._shown = len(self._decode(self._window[: self._num_context]))
        return given

    def _give_broken(self, text: str) -> str:
        """Give out bytes that will never be a character, up to where decoding can be split."""
        for at in range(len(self._window) - 1, self._num_context, -1):
            head = self._decode(self._window[:at])
            if head + self._decode(self._window[at:]) == text:
                return self._give(head, at)
        return ""
