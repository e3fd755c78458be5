"""Messages of a conversation."""

import re
from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[str, ...] = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class Message:
    """One message: ``content`` is its visible text and nothing else."""

    role: str
    content: str


_THOUGHT = re.compile(r"\s*<think>.*?</think>\s*", re.DOTALL)


def visible_text(text: str) -> str:
    """Return an assistant text without the closed think block that it may begin with."""
    thought = _THOUGHT.match(text)
    return text[thought.end() :] if thought else text
