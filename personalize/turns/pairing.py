"""Pairing: which of our replies does a new user message follow?

y is looked for, not the whole history: by the conversation up to the reply (key 1), else by the reply's text alone
(key 2). Training uses the ids recorded with y, so whatever a client did to older messages costs nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from personalize.turns.canonical import canonical_text, prefix_key, prompt_key, reply_key
from personalize.types import Message, Outcome

MIN_REPLY_CHARS = 20
"""Shorter replies ("Yes.") are not looked for by their text alone."""
REPLY_WINDOW_S = 24 * 3600.0
"""How old a reply may be that is looked for by its text alone."""


class TurnRef(Protocol):
    """What pairing reads of a recorded turn; of one user only.

    ``paired``: a follow-up to its reply was queued. ``taught``: its own last message was, for another turn.
    """

    @property
    def turn_id(self) -> str: ...
    @property
    def created_s(self) -> float: ...
    @property
    def request_id(self) -> str: ...
    @property
    def finish_reason(self) -> str: ...
    @property
    def reply_chars(self) -> int: ...
    @property
    def paired(self) -> bool: ...
    @property
    def taught(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Paired:
    """The turn that the message follows, and o: all user messages after its reply, joined by newlines."""

    turn: TurnRef
    follow_up: str


@dataclass(frozen=True, slots=True)
class Unpaired:
    """Why there is nothing to learn from; final."""

    outcome: Outcome


Pairing = Paired | Unpaired


def pair(
    messages: Sequence[Message],
    *,
    key: bytes,
    find_by_prefix: Callable[[str], Sequence[TurnRef]],
    find_by_reply: Callable[[str, float], Sequence[TurnRef]],
    find_by_prompt: Callable[[str], Sequence[TurnRef]],
    find_by_request: Callable[[str], Sequence[TurnRef]],
    now_s: float,
) -> Pairing:
    """Find the turn whose reply the last user messages follow.

    Of several turns with the same conversation and reply the newest counts; once it has a follow-up, every other is a
    duplicate. Of several choices of one request (n > 1) at most one is paired.

    Args:
        messages: the request, as ``parse_messages`` returns it.
        key: the user's secret, as it was used for recording.
        find_by_prefix: this user's turns by ``prefix_key``, newest first.
        find_by_reply: this user's turns by ``reply_key`` since a time in seconds; paired ones may be left out.
        find_by_prompt: this user's turns by ``prompt_key``.
        find_by_request: this user's turns by ``request_id``: all choices of one request.
        now_s: the present, on the clock of ``created_s``.
    """
    spoken = [message for message in messages if message.role != "system"]
    if not spoken or spoken[-1].role != "user":
        return Unpaired(Outcome.SKIPPED_TOOL_TURN)
    end = next((i for i in range(len(spoken), 0, -1) if spoken[i - 1].role == "assistant"), 0)
    if not end:
        return Unpaired(Outcome.SKIPPED_FIRST_MESSAGE)
    if any(message.role != "user" for message in spoken[end:]):
        return Unpaired(Outcome.SKIPPED_TOOL_TURN)
    found = _newest(find_by_prefix(prefix_key(key, spoken[:end])))
    if found is None and any(turn.taught for turn in find_by_prompt(prompt_key(key, spoken))):
        return Unpaired(Outcome.SKIPPED_DUPLICATE)  # this very request came before; its turn is not to be guessed again
    if found is None:
        found = _by_reply(spoken[end - 1], key, find_by_reply, now_s)
    if found is None:
        same_prompt = find_by_prompt(prompt_key(key, spoken[: end - 1]))
        return Unpaired(Outcome.SKIPPED_EDITED_HISTORY if same_prompt else Outcome.SKIPPED_NOT_OUR_REPLY)
    if isinstance(found, Unpaired):
        return found
    said = [message.content for message in spoken[end:] if message.content.strip()]
    return _judged(found, find_by_request(found.request_id), "\n".join(said))


def _by_reply(
    reply: Message, key: bytes, find_by_reply: Callable[[str, float], Sequence[TurnRef]], now_s: float
) -> TurnRef | Unpaired | None:
    text, since_s = canonical_text(reply), now_s - REPLY_WINDOW_S
    if len(text) < MIN_REPLY_CHARS:
        return None
    found = [turn for turn in find_by_reply(reply_key(key, text), since_s) if turn.created_s >= since_s]
    waiting = [turn for turn in found if not turn.paired]
    if len(waiting) > 1:
        return Unpaired(Outcome.SKIPPED_AMBIGUOUS_REPLY)
    return waiting[0] if waiting else _newest(found)


def _newest(turns: Sequence[TurnRef]) -> TurnRef | None:
    return max(turns, key=lambda turn: turn.created_s, default=None)


def _judged(turn: TurnRef, choices: Sequence[TurnRef], follow_up: str) -> Pairing:
    if turn.paired or any(choice.paired for choice in choices):
        return Unpaired(Outcome.SKIPPED_DUPLICATE)
    if turn.finish_reason == "length":
        return Unpaired(Outcome.SKIPPED_CAPPED_REPLY)
    if turn.reply_chars == 0:
        return Unpaired(Outcome.SKIPPED_LOW_SIGNAL)  # nothing was said, so nothing can be said differently
    return Paired(turn, follow_up)
