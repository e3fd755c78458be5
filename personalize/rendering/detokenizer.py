"""Sampled ids to visible text while a reply is being generated, and to the record of it when it ends."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Literal, Protocol

from personalize.rendering.text_stream import TextStream
from personalize.rendering.thinking import Thinking
from personalize.rendering.watch import Watch
from personalize.types import Completion, FinishReason

StoppedBy = Literal["end_token", "stop_string", "length", "cancel"]


class Vocabulary(Protocol):
    """What a detokenizer needs of a renderer; ``thinking`` may be missing."""

    @property
    def end_ids(self) -> frozenset[int]: ...

    def decode(self, ids: Sequence[int]) -> str: ...


class Detokenizer:
    """Turns one reply's ids into its visible text.

    Positions are characters of the *raw* text, thoughts included. Each token is recorded with the raw position where
    it ends, or with the one before it while it ends inside a character.

    Args:
        renderer: decodes, and knows the end tokens and think marks.
        stop: strings that end the reply; looked for in the visible text only.

    Attributes:
        stopped: an end token or a stop string was met; nothing more may be fed.
    """

    def __init__(self, renderer: Vocabulary, stop: Sequence[str] = ()):
        self.stopped = False
        self._end_ids = renderer.end_ids
        self._thinking: Thinking | None = getattr(renderer, "thinking", None)
        self._stream = TextStream(renderer.decode)
        self._by_token: Literal["end_token", "stop_string"] | None = None
        self._ids: list[int] = []
        self._ends: list[int] = []
        self._whole: list[bool] = []
        self._in_thought: list[bool] = []
        self._visible: list[str] = []
        self._hidden: list[tuple[int, int]] = []
        self._num_raw = 0  # characters that came out of the stream
        self._num_seen = 0  # of these, the ones known to be visible or hidden
        self._thought = self._thinking is not None and self._thinking.opened
        self._after_thought = False
        in_text = self._thinking if self._thinking and self._thinking.in_text else None
        self._stop = tuple(stop)
        self._outside = Watch((*stop, in_text.opening) if in_text else stop)
        self._inside = Watch((in_text.closing,) if in_text else ())

    def feed(self, token_id: int) -> str:
        """Return the visible text that became final with this token."""
        assert not self.stopped, "the reply has ended"
        self._ids.append(token_id)
        before = self._thought
        if token_id in self._end_ids:
            text = self._drain()
            if not self.stopped:
                self.stopped, self._by_token = True, "end_token"
        elif self._thinking and token_id in (self._thinking.open_id, self._thinking.close_id):
            text = self._toggle(token_id == self._thinking.open_id)
            before = True
        else:
            text = self._take(self._stream.feed(token_id))
        whole = not self._stream.pending
        self._in_thought.append(before or self._thought or (self._after_thought and whole))
        self._ends.append(self._num_raw)
        self._whole.append(whole)
        return text

    def finish(self, reason: FinishReason) -> tuple[str, Completion]:
        """Return the visible text that was still held back, and the reply as it is recorded.

        Args:
            reason: why generation ended; an end token or a stop string that was met counts first. A cut reply keeps
                its whole characters; a cancelled one ends with the last character given out.
        """
        assert self.stopped or reason != "stop", "neither an end token nor a stop string was met"
        tail = self._release(self._watch.drain()) if not self.stopped and reason == "length" else ""
        stopped_by: StoppedBy = self._by_token or ("length" if reason == "length" else "cancel")
        kept = len(self._ids) if stopped_by == "end_token" else self._num_kept()
        mask = tuple(int(self._trains(i)) for i in range(kept))
        text = "".join(self._visible)
        finish_reason: FinishReason = "stop" if self.stopped else reason
        return tail, Completion(tuple(self._ids[:kept]), mask, text, finish_reason, stopped_by)

    @property
    def _watch(self) -> Watch:
        return self._inside if self._thought else self._outside

    def _take(self, text: str) -> str:
        """Sort new raw text into visible and hidden; return the visible part."""
        self._num_raw += len(text)
        given = ""
        while not self.stopped:
            text = self._skip_gap(text)
            free, met = self._watch.feed(text)
            given += self._release(free)
            if met is None:
                return given
            text = self._meet(met)
        return given

    def _meet(self, pattern: str) -> str:
        """Act on a mark or stop string; return the text behind it."""
        behind = self._watch.drain()
        if not self._thought and pattern in self._stop:
            self.stopped, self._by_token = True, "stop_string"
            return ""
        self._hide(len(pattern))
        self._after_thought = self._thought
        self._thought = not self._thought
        return behind

    def _skip_gap(self, text: str) -> str:
        """Hide the white space between a thought and the answer."""
        if not self._after_thought:
            return text
        answer = text.lstrip()
        self._num_seen += len(text) - len(answer)
        self._after_thought = not answer
        return answer

    def _toggle(self, opens: bool) -> str:
        text = self._drain()
        self._after_thought = not opens and (self._thought or self._after_thought)
        self._thought = opens
        return text

    def _drain(self) -> str:
        text = self._take(self._stream.flush())
        return text if self.stopped else text + self._release(self._watch.drain())

    def _release(self, text: str) -> str:
        if self._thought:
            self._hide(len(text))
            return ""
        self._num_seen += len(text)
        if text:
            self._visible.append(text)
        return text

    def _hide(self, length: int) -> None:
        start, self._num_seen = self._num_seen, self._num_seen + length
        if self._hidden and self._hidden[-1][1] == start:
            start = self._hidden.pop()[0]
        self._hidden.append((start, self._num_seen))

    def _num_kept(self) -> int:
        """Return how many tokens end, with whole characters, before the text that is not part of the reply."""
        kept = bisect_right(self._ends, self._num_seen)
        while kept and not self._whole[kept - 1]:
            kept -= 1
        return kept

    def _trains(self, index: int) -> bool:
        if self._in_thought[index]:
            return False
        start, end = (self._ends[index - 1] if index else 0), self._ends[index]
        return not any(low < end and start < high for low, high in self._hidden)


def cut(renderer: Vocabulary, completion: Completion, num_chars: int) -> Completion:
    """Return ``completion`` as if it had been cancelled after ``num_chars`` visible characters.

    For streams whose reader left before everything was delivered: the turn ends at the last delivered token.
    """
    if num_chars >= len(completion.text):
        return completion
    probe, given, kept = Detokenizer(renderer), 0, 0
    for number, token_id in enumerate(completion.token_ids, start=1):
        given += len(probe.feed(token_id))
        if given > num_chars or probe.stopped:
            break
        kept = number
    cancelled = Detokenizer(renderer)
    for token_id in completion.token_ids[:kept]:
        cancelled.feed(token_id)
    return cancelled.finish("cancel")[1]
