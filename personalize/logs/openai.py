"""OpenAI message lists: ``{"messages": [{"role": ..., "content": ...}, ...], "user": ...}``."""

from collections.abc import Mapping
from typing import Any

from personalize.logs.person import person
from personalize.rendering.messages import parse_conversation
from personalize.types import Message

KEY = "messages"


def read(record: Mapping[str, Any]) -> tuple[str | None, tuple[Message, ...]]:
    """Return who speaks and what is said; the person is ``user``, else ``safety_identifier``, else ``user_id``.

    Raises:
        InvalidRequest: the record is not of this shape.
    """
    return person(record, "user", "safety_identifier", "user_id"), parse_conversation(record[KEY])
