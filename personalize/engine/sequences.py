"""One request on its way through the engine."""

import random
from dataclasses import dataclass
from enum import Enum

from personalize.errors import PersonalizeError
from personalize.rendering.detokenizer import Detokenizer
from personalize.types import GenerateRequest, TokenChunk


class Phase(Enum):
    """Where a sequence is: it only ever moves to the right, and may end from anywhere."""

    WAITING = "waiting"
    PREFILL = "prefill"
    DECODE = "decode"
    ENDED = "ended"


@dataclass(eq=False, slots=True)
class Sequence:
    """A request, the row and slot that it holds, and how far it has come.

    Attributes:
        max_new: most tokens to generate, from max_tokens and the context.
        arrival: running number, the order of service.
        rng: source of this sequence's draws; nobody else draws from it.
        row: cache row, -1 while it waits.
        slot: adapter slot; the base's slot 0 for no adapter.
        num_cached: tokens whose keys and values lie in the row.
        num_new: tokens sampled so far.
        last_token: the newest sampled id, not in the cache yet.
        waited_steps: scheduling rounds in which only a slot was missing.
    """

    request: GenerateRequest
    detokenizer: Detokenizer
    max_new: int
    arrival: int
    rng: random.Random
    phase: Phase = Phase.WAITING
    row: int = -1
    slot: int = 0
    num_cached: int = 0
    num_new: int = 0
    last_token: int = -1
    waited_steps: int = 0

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        return self.request.prompt_ids

    @property
    def user(self) -> str | None:
        """Whose request it is; None where nobody said."""
        return self.request.user_id or (self.request.adapter.user_id if self.request.adapter else None)

    @property
    def adapter_name(self) -> str | None:
        return self.request.adapter.name if self.request.adapter else None


@dataclass(frozen=True, slots=True)
class Output:
    """What one step has for one sequence: a chunk, or the error that ended it."""

    sequence: Sequence
    chunk: TokenChunk | None = None
    error: PersonalizeError | None = None
