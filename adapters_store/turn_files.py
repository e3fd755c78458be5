"""The file of one turn: what is new since its parent turn, as compact JSON.

A child's prompt mostly repeats the parent's prompt and reply, so it stores how many ids and messages it shares with
them and the rest in full: the files of a conversation grow with the conversation, not with its square.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from adapters_store.errors import StorageUnavailable
from adapters_store.types import NewTurn

Messages = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Conversation:
    """A turn put together: prompt, reply and messages in full."""

    messages: Messages
    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    completion_mask: tuple[int, ...]
    reply_text: str

    @property
    def all_ids(self) -> tuple[int, ...]:
        return self.prompt_ids + self.completion_ids

    @property
    def all_messages(self) -> Messages:
        return (*self.messages, ("assistant", self.reply_text))


EMPTY = Conversation((), (), (), (), "")


def encode(turn: NewTurn, parent_id: str | None, parent: Conversation) -> bytes:
    """Return the file's bytes; lone surrogates in texts survive."""
    before_ids, before_messages = (parent.all_ids, parent.all_messages) if parent_id else ((), ())
    shared_ids = shared_length(before_ids, turn.prompt_ids)
    shared_messages = shared_length(before_messages, turn.messages)
    value = {
        "format": 1,
        "parent": parent_id if shared_ids or shared_messages else None,
        "shared_ids": shared_ids,
        "ids": list(turn.prompt_ids[shared_ids:]),
        "shared_messages": shared_messages,
        "messages": [list(message) for message in turn.messages[shared_messages:]],
        "completion": list(turn.completion_ids),
        "mask": "".join(map(str, turn.completion_mask)),
        "reply": turn.reply_text,
    }
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def decode(data: bytes) -> dict[str, Any]:
    """Return a file's fields.

    Raises:
        StorageUnavailable: damaged, or of a later format.
    """
    try:
        value = json.loads(data.decode("utf-8", "surrogatepass"))
    except ValueError as error:
        raise StorageUnavailable("a turn file is damaged") from error
    if not isinstance(value, dict) or value.get("format") != 1:
        raise StorageUnavailable("a turn file has a format that this code does not know")
    return value


def grow(parent: Conversation, file: dict[str, Any]) -> Conversation:
    """Return the conversation one turn further: the shared part of the parent, then what is new."""
    new_messages = tuple((role, content) for role, content in file["messages"])
    return Conversation(
        messages=parent.all_messages[: file["shared_messages"]] + new_messages,
        prompt_ids=parent.all_ids[: file["shared_ids"]] + tuple(file["ids"]),
        completion_ids=tuple(file["completion"]),
        completion_mask=tuple(map(int, file["mask"])),
        reply_text=file["reply"],
    )


def shared_length(a: Sequence[Any], b: Sequence[Any]) -> int:
    """Return the length of the longest common prefix."""
    length = min(len(a), len(b))
    return next((index for index in range(length) if a[index] != b[index]), length)
