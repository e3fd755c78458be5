"""ShareGPT: ``{"conversations": [{"from": "human", "value": ...}, {"from": "gpt", "value": ...}], "id": ...}``.

``id`` names the conversation and not the person, so it is not taken for a user.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from personalize.errors import InvalidParameter
from personalize.logs.person import person
from personalize.rendering.messages import parse_conversation
from personalize.types import Message

KEY = "conversations"
ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
}


def read(record: Mapping[str, Any]) -> tuple[str | None, tuple[Message, ...]]:
    """Return who speaks and what is said; the person is ``user``, else ``user_id``.

    Raises:
        InvalidRequest: the record is not of this shape.
    """
    said = record[KEY]
    if isinstance(said, str | bytes) or not isinstance(said, Sequence):
        raise InvalidParameter(KEY, said, "a list of messages")
    renamed = [_message(item, f"{KEY}[{i}]") for i, item in enumerate(said)]
    return person(record, "user", "user_id"), parse_conversation(renamed)


def _message(item: object, where: str) -> dict[str, Any]:
    if not isinstance(item, Mapping):
        raise InvalidParameter(where, item, "an object with from and value")
    speaker = item.get("from")
    if not isinstance(speaker, str) or speaker not in ROLES:
        raise InvalidParameter(f"{where}.from", speaker, ", ".join(ROLES))
    return {"role": ROLES[speaker], "content": item.get("value")}
