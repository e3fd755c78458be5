"""Replies to many prompts at once, by the engine that serves."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from personalize.config import EngineSettings
from personalize.engine.engine import Engine
from personalize.model.base import BaseModel
from personalize.types import Completion, Experience, GenerateRequest, Message, SamplingParams

_SEED_STEP = 1_000_003
"""Between the seeds of two runs; more than the replies of a run, so that no two draw the same numbers."""
_NUM_ROWS = {"cpu": 16, "cuda": 64}


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question, and what the hindsight block tells about it."""

    question: str
    told: tuple[str, ...] = ()

    @property
    def messages(self) -> tuple[Message, ...]:
        return (Message("user", self.question),)


@dataclass(frozen=True, slots=True)
class Answer:
    """One reply to a prompt."""

    prompt: Prompt
    prompt_ids: tuple[int, ...]
    completion: Completion

    @property
    def text(self) -> str:
        return self.completion.text

    @property
    def trained_ids(self) -> tuple[int, ...]:
        """The ids of the reply that count when it is read: all but thoughts."""
        ids = zip(self.completion.token_ids, self.completion.mask, strict=True)
        return tuple(token for token, counts in ids if counts)

    def followed_by(self, follow_up: str, number: int = 0) -> Experience:
        """Return the turn that ``follow_up`` makes of this reply; ``number`` names it among others."""
        assert not self.prompt.told, "users see replies to plain prompts only"
        return Experience(
            turn_id=f"{number:032x}",
            messages=self.prompt.messages,
            prompt_ids=self.prompt_ids,
            completion_ids=self.completion.token_ids,
            completion_mask=self.completion.mask,
            follow_up=follow_up,
            finish_reason=self.completion.finish_reason,
        )


class Sampler:
    """Draws replies of the base model; to be closed, best with ``with``.

    The same seed gives the same replies to the same prompts in the same order.

    Args:
        base: needs a renderer.
        max_tokens: cap of a reply.
    """

    def __init__(self, base: BaseModel, *, max_tokens: int, seed: int = 0):
        assert base.renderer is not None, "prompts are rendered through the chat template"
        self._renderer = base.renderer
        self._max_tokens = max_tokens
        self._next_seed = seed * _SEED_STEP
        num_rows = _NUM_ROWS.get(base.device.type, 16)
        # One slot: nobody has an adapter here, and slots take memory.
        settings = EngineSettings(max_num_seqs=num_rows, max_loras=1, max_waiting=1_000_000)
        self._engine = Engine(base, settings, rank=1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self._engine.close()

    def replies(
        self, prompts: Sequence[Prompt], *, temperature: float = 1.0, max_tokens: int | None = None
    ) -> tuple[Answer, ...]:
        """Return one reply per prompt, in order.

        Raises:
            ContextTooLong: a prompt leaves no room for a single token.
            ModelError: the model's output is not finite.
        """
        sequences = {}
        for place, prompt in enumerate(prompts):
            ids = self._renderer.render(prompt.messages, prompt.told)
            cap = min(max_tokens or self._max_tokens, self._max_tokens)
            sampling = SamplingParams(temperature=temperature, max_tokens=cap, seed=self._next_seed)
            self._next_seed += 1
            sequences[self._engine.add(GenerateRequest(str(place), ids, sampling))] = place
        answers: dict[int, Answer] = {}
        while self._engine.has_work:
            for output in self._engine.step():
                if output.error is not None:
                    raise output.error
                if output.chunk is not None and output.chunk.completion is not None:
                    place = sequences[output.sequence]
                    answers[place] = Answer(prompts[place], output.sequence.prompt_ids, output.chunk.completion)
        return tuple(answers[place] for place in range(len(prompts)))
