"""What a learner is shown of a user, and what the recipe remembers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from personalize.types.generation import FinishReason
from personalize.types.messages import Message


@dataclass(frozen=True, slots=True)
class Experience:
    """One turn (x, y) with its follow-up o, ready to learn from.

    Attributes:
        turn_id: the turn's id in the store.
        messages: x as messages, ending with a user message; the hindsight block goes into that one.
        prompt_ids: x exactly as it was served.
        completion_ids: y exactly as it was sampled.
        completion_mask: 1 where a token of y is trained.
        follow_up: o, all user messages after y, joined by newlines.
        finish_reason: why y ended.
    """

    turn_id: str
    messages: tuple[Message, ...]
    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    completion_mask: tuple[int, ...]
    follow_up: str
    finish_reason: FinishReason = "stop"


@dataclass(frozen=True, slots=True)
class LearningState:
    """What the recipe remembers of a user between updates: turn ids, never text. It lives in a version's manifest.

    Attributes:
        block: turns whose follow-ups are told to the teacher, oldest first.
        replay: turns that may be trained again, oldest first.
        num_updates: updates since the adapter was new.
    """

    block: tuple[str, ...] = ()
    replay: tuple[str, ...] = ()
    num_updates: int = 0

    def to_json(self) -> dict[str, Any]:
        return {"block": list(self.block), "replay": list(self.replay), "num_updates": self.num_updates}

    @classmethod
    def from_json(cls, value: Mapping[str, Any] | None) -> "LearningState":
        value = value or {}
        return cls(tuple(value.get("block", ())), tuple(value.get("replay", ())), int(value.get("num_updates", 0)))


@dataclass(frozen=True, slots=True)
class Lesson:
    """All that a learner gets to see of one user for one update.

    Attributes:
        experience: the new turn.
        memory: the turns that ``state`` names and that still exist (others are silently left out of the recipe).
        state: what the recipe remembered with the parent version.
        moments: the file of the optimizer's moments after the parent version, where it is not in the version's folder.
        user_id: whose turns these are; a learner keeps what it may want again under this name.
    """

    experience: Experience
    memory: tuple[Experience, ...] = ()
    state: LearningState = LearningState()
    moments: str | None = None
    user_id: str = ""
