"""Looking for strings in a text that arrives in pieces."""

from collections.abc import Sequence


class Watch:
    """Holds text back as long as it might be the beginning of one of ``patterns``.

    The match that ends first counts, of two that end together the longer one, so the result does not depend on how the
    text was cut into pieces.
    """

    def __init__(self, patterns: Sequence[str]):
        self.patterns = tuple(patterns)
        self.held = ""

    def feed(self, text: str) -> tuple[str, str | None]:
        """Return the text that is free of patterns for sure, and the pattern that was met right after it.

        After a match, what stood behind it is in ``held``, not yet looked at.
        """
        self.held += text
        found = self._first()
        if found is None:
            return self._release(len(self.held) - self._num_open()), None
        start, pattern = found
        free = self._release(start)
        self._release(len(pattern))
        return free, pattern

    def drain(self) -> str:
        """Return what is held; nothing more will come."""
        return self._release(len(self.held))

    def _release(self, length: int) -> str:
        text, self.held = self.held[:length], self.held[length:]
        return text

    def _first(self) -> tuple[int, str] | None:
        starts = ((self.held.find(pattern), pattern) for pattern in self.patterns)
        ends = [(start + len(pattern), start, pattern) for start, pattern in starts if start >= 0]
        return min(ends)[1:] if ends else None

    def _num_open(self) -> int:
        """Return the length of the longest end of the held text with which a pattern begins."""
        return max((_overlap(self.held, pattern) for pattern in self.patterns), default=0)


def _overlap(text: str, pattern: str) -> int:
    longest = min(len(text), len(pattern) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(pattern[:n])), 0)
