"""WildChat: ``{"conversation": [{"role": ..., "content": ..., "hashed_ip": ...}, ...], "hashed_ip": ...}``."""

from collections.abc import Mapping
from typing import Any

from personalize.logs.person import person
from personalize.rendering.messages import parse_conversation
from personalize.types import Message

KEY = "conversation"


def read(record: Mapping[str, Any]) -> tuple[str | None, tuple[Message, ...]]:
    """Return who speaks and what is said; the person is ``user_id``, else ``hashed_ip``, else the first message's.

    Raises:
        InvalidRequest: the record is not of this shape.
    """
    messages = parse_conversation(record[KEY])
    user = person(record, "user_id", "hashed_ip")
    return user or (person(record[KEY][0], "hashed_ip") if messages else None), messages
