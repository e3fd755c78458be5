"""A small book of recorded turns, as the store keeps them, and a server that answers what it is told to."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from personalize.rendering.messages import parse_messages
from personalize.turns import Paired, Pairing, pair, prefix_key, prompt_key, reply_key
from personalize.types import Message, Outcome

KEY = b"the user's secret"


@dataclass(frozen=True)
class Turn:
    turn_id: str
    created_s: float
    request_id: str
    finish_reason: str
    reply: str
    prefix: str
    prompt: str
    by_reply: str
    taught: bool
    paired: bool = False

    @property
    def reply_chars(self) -> int:
        return len(self.reply)


@dataclass
class Book:
    """What one user said and was told.

    Attributes:
        last: what pairing said about the latest request.
    """

    turns: list[Turn] = field(default_factory=list)
    now_s: float = 1_000_000.0
    num_requests: int = 0
    last: Pairing | None = None

    def chat(self, raw, *replies: str, finish: str = "stop", after_s: float = 1.0) -> str:
        """Pair a request, then record its replies; return the outcome's code."""
        self.now_s += after_s
        messages = parse_messages(raw)
        self.last = self.pair(messages)
        if isinstance(self.last, Paired):
            at = next(i for i, turn in enumerate(self.turns) if turn is self.last.turn)
            self.turns[at] = replace(self.turns[at], paired=True)
        self.num_requests += 1
        for reply in replies:
            self._record(messages, reply, finish)
        return Outcome.QUEUED if isinstance(self.last, Paired) else self.last.outcome

    def pair(self, messages) -> Pairing:
        return pair(
            messages,
            key=KEY,
            find_by_prefix=lambda key: self._found(lambda turn: turn.prefix == key),
            find_by_reply=lambda key, since: self._found(lambda turn: turn.by_reply == key and turn.created_s >= since),
            find_by_prompt=lambda key: self._found(lambda turn: turn.prompt == key),
            find_by_request=lambda request_id: self._found(lambda turn: turn.request_id == request_id),
            now_s=self.now_s,
        )

    def _found(self, wanted: Callable[[Turn], bool]) -> list[Turn]:
        return [turn for turn in reversed(self.turns) if wanted(turn)]

    def _record(self, messages, reply: str, finish: str) -> None:
        self.turns.append(
            Turn(
                turn_id=str(len(self.turns)),
                created_s=self.now_s,
                request_id=str(self.num_requests),
                finish_reason=finish,
                reply=reply,
                prefix=prefix_key(KEY, [*messages, Message("assistant", reply)]),
                prompt=prompt_key(KEY, messages),
                by_reply=reply_key(KEY, reply),
                taught=isinstance(self.last, Paired),
            )
        )
