"""A few replies of the base that any healthy adapter still finds plausible.

A wish such as "one sentence, please" moves the first token of a sentence here and there; a broken adapter moves nearly
every token. So what counts is the share of tokens that became implausible, not how far the worst one fell.

Shape letters: N tokens of all replies of all adapters.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Self

from torch import Tensor

from personalize.learner.batch import Row
from personalize.learner.greedy import finished, plain_answers
from personalize.learner.passes import token_log_probs
from personalize.model.base import BaseModel
from personalize.model.lora import LoraTensors
from personalize.model.rows import AdapterRows
from personalize.types import Window

QUESTIONS = ("What is 2 plus 3?", "Thank you!", "Tell me about water.", "Can you help me?")
TOKENS_EACH = 16
"""Together at most 64 positions."""
FALL_NATS = 5.0
"""A token whose log-probability fell by more counts as lost."""


@dataclass(frozen=True, slots=True)
class Canaries:
    """The base's own greedy replies to `QUESTIONS`, and how plausible it finds their tokens.

    Attributes:
        rows: one per reply.
        base_N: the base's log-probability of every token.
    """

    rows: tuple[Row, ...]
    base_N: Tensor

    @classmethod
    def of(cls, base: BaseModel) -> Self:
        """Ask ``base`` at once; see ``asking``."""
        return finished(cls.asking(base))

    @classmethod
    def asking(cls, base: BaseModel) -> Generator[Window, None, Self]:
        """Ask ``base``, which needs a renderer; yields after every pass."""
        rows, base_N = yield from plain_answers(base, QUESTIONS, TOKENS_EACH)
        return cls(rows, base_N)

    def lost(self, base: BaseModel, adapters: Sequence[LoraTensors]) -> list[float]:
        """Return, for every adapter, the share of tokens that it finds implausible; 1.0 for one that is not finite."""
        count = len(self.rows)
        index = [place for place in range(len(adapters)) for _ in range(count)]
        now_N = token_log_probs(base, self.rows * len(adapters), AdapterRows.of(list(adapters), index))
        fell = ~(self.base_N.repeat(len(adapters)) - now_N <= FALL_NATS)  # a NaN is a loss too
        return fell.float().view(len(adapters), -1).mean(dim=1).tolist()
