"""Engines and learners, opened by name; the engine's own libraries are imported only by the backend that needs them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from personalize.config import Settings
from personalize.protocols import InferenceBackend
from personalize.types import (
    AdapterRef,
    ExplainRequest,
    Lesson,
    Message,
    Review,
    ReviewRequest,
    UpdateEffect,
    UpdateReport,
)


class PromptRenderer(Protocol):
    """Messages to token ids and back; ``rendering.Renderer`` and ``echo.ByteRenderer``."""

    @property
    def end_ids(self) -> frozenset[int]: ...

    def render(self, messages: Sequence[Message], follow_ups: Sequence[str] = ()) -> tuple[int, ...]: ...

    def reply_ids(self, text: str) -> tuple[int, ...]: ...

    def decode(self, ids: Sequence[int]) -> str: ...


class Trainer(Protocol):
    """Runs updates beside the replies."""

    async def run_update(
        self, lessons: Sequence[Lesson], parents: Sequence[AdapterRef | None], out_dirs: Sequence[Path]
    ) -> tuple[UpdateReport, ...]:
        """Return one report per lesson; see ``protocols.Learner.update``. Cancelling it abandons the update."""
        ...

    async def fingerprint(self, refs: Sequence[AdapterRef | None], prompts: Sequence[Sequence[int]]) -> tuple[str, ...]:
        """Return a digest of every adapter's logits on ``prompts``, all computed in one mixed batch."""
        ...

    async def explain(self, request: ExplainRequest) -> UpdateEffect:
        """Return what an applied update did to its reply, token by token; replies go on between its passes.

        Raises:
            AdapterError: a version's folder cannot be loaded.
            ContextTooLong: the turn does not fit the context any more.
        """
        ...

    async def review(self, request: ReviewRequest) -> Review | None:
        """Judge a version by what it says, only ever while no reply and no update is to be made.

        None where there is nobody to judge it. Cancelling it abandons the review at once.

        Raises:
            AdapterError: the version's folder cannot be loaded.
        """
        ...

    async def publish(self, ref: AdapterRef, tensors: Any) -> None:
        """Take over a version that has just been committed, so that its first use need not read the disk."""
        ...

    async def prefill_again(self, ref: AdapterRef, conversations: Sequence[Sequence[int]]) -> None:
        """Hint: the user will go on with these token ids, under the version that was published; in idle time only."""
        ...


@dataclass(frozen=True, slots=True)
class Opened:
    """A base model that serves and learns.

    Attributes:
        base_digest: names base weights, tokenizer and chat template together.
        max_model_len: prompt and reply together, in tokens.
        max_batch: users that one update takes together.
        modules: module name -> (d_in, d_out) of every layer that can carry an adapter; None where nobody can say.
    """

    inference: InferenceBackend
    trainer: Trainer
    renderer: PromptRenderer
    base_digest: str
    max_model_len: int
    max_batch: int
    modules: Mapping[str, tuple[int, int]] | None = None


def open_backend(settings: Settings) -> Opened:
    """Load the backend that ``settings`` name; it blocks while a model is read.

    Raises:
        ModelError: the base model cannot be used.
    """
    return _echo(settings) if settings.backend == "echo" else _local(settings)


def _echo(settings: Settings) -> Opened:
    from personalize.backends.echo import BASE_DIGEST, MODULES, EchoBackend

    backend = EchoBackend(max_model_len=settings.engine.max_model_len or 65_536)
    return Opened(backend, backend, backend.renderer, BASE_DIGEST, backend.max_model_len, max_batch=8, modules=MODULES)


def _local(settings: Settings) -> Opened:
    from personalize.backends.local import open_local

    return open_local(settings)
