"""Chat requests and their replies, whole and streamed."""

from dataclasses import dataclass, field
from typing import Literal

from personalize.types.generation import FinishReason
from personalize.types.messages import Message
from personalize.types.outcomes import Outcome
from personalize.types.sampling import SamplingParams


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One chat request.

    Attributes:
        messages: the conversation, ending with a user message; as the client keeps it.
        user: external id of the person; None serves the base model and learns nothing.
        sampling: how replies are drawn.
        n: number of choices.
        learn: False keeps this message from teaching anything.
        temporary: neither reads the user's adapter nor records anything.
        version: "head", "base", or the number of one of the user's versions.
    """

    messages: tuple[Message, ...]
    user: str | None = None
    sampling: SamplingParams = field(default_factory=SamplingParams)
    n: int = 1
    learn: bool = True
    temporary: bool = False
    version: int | Literal["head", "base"] = "head"


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one request."""

    prompt_tokens: int
    completion_tokens: int

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Reply:
    """One finished answer.

    Attributes:
        text: the visible text.
        finish_reason: why it ended.
        request_id: names the chat request; its final learning outcome is kept under it.
        turn_id: the recorded turn; None where nothing is recorded (no user, temporary).
        adapter_version: number of the user's version that served it; None for the base model, and where the
            population adapter served.
        outcome: what became of this request's last user message as a follow-up; ``queued`` may still change.
        usage: token counts.
        population_version: number of the population adapter's version, where that served it.
    """

    text: str
    finish_reason: FinishReason
    request_id: str
    turn_id: str | None
    adapter_version: int | None
    outcome: Outcome
    usage: Usage
    population_version: int | None = None


@dataclass(frozen=True, slots=True)
class ReplyStart:
    """What is settled about a streamed answer before its first token; HTTP headers are made of it."""

    request_id: str
    adapter_version: int | None
    outcome: Outcome
    population_version: int | None = None


@dataclass(frozen=True, slots=True)
class ReplyChunk:
    """A piece of a streamed answer; the last one of each choice carries its whole ``Reply``.

    Attributes:
        start: with the first chunk of the stream only.
    """

    text: str = ""
    index: int = 0
    reply: Reply | None = None
    start: ReplyStart | None = None
