"""The two borders behind which engines and learners can be swapped."""

from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from personalize.types import AdapterRef, GenerateRequest, Lesson, TokenChunk, Window


class InferenceBackend(Protocol):
    """Token ids in, token ids out, under any adapter version."""

    def generate(self, request: GenerateRequest) -> AsyncIterator[TokenChunk]:
        """Yield the reply step by step; closing the iterator cancels the sequence.

        Raises:
            ContextTooLong: the prompt leaves no room for a single token.
            AdapterError: the adapter's folder cannot be loaded; other requests are not affected.
            Overloaded: too many requests wait.
        """
        ...

    async def load_adapter(self, ref: AdapterRef) -> None:
        """Hint: make the version warm."""
        ...

    async def unload_adapter(self, ref: AdapterRef) -> None:
        """Hint: let go of the version; sequences that run on it end undisturbed."""
        ...

    async def aclose(self) -> None: ...


class Learner(Protocol):
    """Turns experiences into new adapter folders, several users in one pass."""

    def update(
        self,
        lessons: Sequence[Lesson],
        parents: Sequence[AdapterRef | None],
        out_dirs: Sequence[Path],
    ) -> Iterator[Window]:
        """Train one step for every lesson; ``next()`` runs to the next safe cut.

        Lesson i starts from ``parents[i]`` (None: a new adapter), is one user's, and no user occurs twice. Where its
        report says ``applied``, ``out_dirs[i]`` holds a PEFT folder (``adapter_config.json``,
        ``adapter_model.safetensors``) and ``optimizer.safetensors``. The last window carries the reports; closing
        the iterator abandons the update without a trace outside ``out_dirs``.
        """
        ...
