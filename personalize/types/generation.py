"""What goes into an engine and comes out: token ids."""

from dataclasses import dataclass, field
from typing import Literal

from personalize.types.sampling import SamplingParams
from personalize.types.versions import AdapterRef

FinishReason = Literal["stop", "length", "cancel"]
"""``stop``: the end token was sampled or a stop string was met; ``length``: max_tokens or the context; ``cancel``."""


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """What an engine needs to produce one reply: token ids in, token ids out.

    Attributes:
        user_id: random id of whose request it is, for fairness between users; None: the adapter's user, or nobody.
    """

    request_id: str
    prompt_ids: tuple[int, ...]
    sampling: SamplingParams = field(default_factory=SamplingParams)
    adapter: AdapterRef | None = None
    user_id: str | None = None


@dataclass(frozen=True, slots=True)
class TokenChunk:
    """What one engine step adds to one sequence.

    Attributes:
        token_ids: the ids sampled in this step (empty in a last chunk that only reports the end).
        text: visible text that became final in this step; think blocks, end tokens and stop strings never appear.
        finish_reason: None while the sequence goes on.
        completion: with the last chunk only, the whole reply as it is recorded.
    """

    token_ids: tuple[int, ...] = ()
    text: str = ""
    finish_reason: FinishReason | None = None
    completion: "Completion | None" = None


@dataclass(frozen=True, slots=True)
class Completion:
    """A finished reply y, as learning will see it.

    Attributes:
        token_ids: the *sampled* ids that count as the reply: up to and including a sampled end token; for a stop
            string, a length cap or a cancellation up to the last whole visible token, without an end token.
        mask: 1 where a token may be trained, 0 for think tokens; as long as ``token_ids``.
        text: the visible text.
        finish_reason: why it ended.
        stopped_by: ``end_token``, ``stop_string``, ``length`` or ``cancel``.
    """

    token_ids: tuple[int, ...]
    mask: tuple[int, ...]
    text: str
    finish_reason: FinishReason
    stopped_by: Literal["end_token", "stop_string", "length", "cancel"]
