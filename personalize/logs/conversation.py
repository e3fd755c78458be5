"""One recorded conversation, and the interactions that can be learnt from in it.

Source: arXiv 2603.12273, offline form: a conversation o0, y1, o1, ..., yt, ot gives one (x, y, o) per answered reply.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

from personalize.types import Message


@dataclass(frozen=True, slots=True)
class LoggedConversation:
    """One sound line of a log.

    Attributes:
        line: its number, from 1.
        end_bytes: where the line ends in the file.
        user: whose conversation it is; None where the line does not say.
        messages: the conversation from its beginning; it may end with anybody's message, or be empty.
    """

    line: int
    end_bytes: int
    user: str | None
    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class BrokenLine:
    """A line that no conversation could be read from; nothing of it is used.

    Attributes:
        line: its number, from 1.
        end_bytes: where the line ends in the file.
        reason: what is wrong with it.
    """

    line: int
    end_bytes: int
    reason: str


@dataclass(frozen=True, slots=True)
class Interaction:
    """One triple (x, y, o).

    Attributes:
        messages: x, everything before the reply.
        reply: y, visible text.
        follow_up: o, all user messages after y, joined by newlines.
    """

    messages: tuple[Message, ...]
    reply: str
    follow_up: str


def interactions(messages: Sequence[Message]) -> Iterator[Interaction]:
    """Yield the conversation's interactions in order, by the rules under which live follow-ups are paired.

    A reply without words, one that answers nobody, and one after which a tool or nobody speaks give none.
    """
    for index, message in enumerate(messages):
        if message.role != "assistant" or not message.content.strip():
            continue
        asked, follow_up = tuple(messages[:index]), _follow_up(messages[index + 1 :])
        if follow_up and _answerable(asked):
            yield Interaction(asked, message.content, follow_up)


def _follow_up(after: Sequence[Message]) -> str:
    """What the user says before the assistant speaks again; empty where a tool speaks in between."""
    spoken = [message for message in after if message.role != "system"]
    said = list(takewhile(lambda message: message.role != "assistant", spoken))
    if any(message.role != "user" for message in said):
        return ""
    return "\n".join(message.content for message in said if message.content.strip())


def _answerable(asked: Sequence[Message]) -> bool:
    """Tell whether a chat request with these messages would have been accepted."""
    spoken = [message for message in asked if message.role != "system"]
    if not any(message.role == "user" and message.content.strip() for message in spoken):
        return False
    last = spoken[-1]
    return last.role == "tool" or (last.role == "user" and bool(last.content.strip()))
