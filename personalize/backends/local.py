"""The base model in this process: the engine and a learner on one copy of the weights."""

import asyncio
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from personalize.backends import Opened
from personalize.config import Settings
from personalize.engine.fingerprint import fingerprints
from personalize.errors import UnsupportedParameter
from personalize.learner.explanation import effect_of, windows
from personalize.learner.hindsight import HindsightLearner
from personalize.learner.recipe import Recipe
from personalize.learner.review import review_of
from personalize.model.base import BaseModel
from personalize.model.folder import read_version
from personalize.model.loading import load_base
from personalize.model.lora import LoraTensors
from personalize.protocols import Learner
from personalize.rendering.renderer import Renderer
from personalize.runtime.device import Runtime
from personalize.runtime.update_run import MakeWindows, UpdateRun
from personalize.types import (
    AdapterRef,
    ExplainRequest,
    GenerateRequest,
    Lesson,
    Review,
    ReviewRequest,
    TokenChunk,
    UpdateEffect,
    UpdateReport,
    Window,
)

T = TypeVar("T")


class LocalBackend:
    """Implements ``InferenceBackend`` and runs updates between its steps.

    Attributes:
        base: the model; to be touched on the device thread only (``runtime.call``).
        runtime: the device thread.
        learner: what ``run_update`` runs; may be exchanged between updates.
    """

    def __init__(self, base: BaseModel, runtime: Runtime, learner: Learner):
        assert base.renderer is not None
        self.base, self.runtime, self.learner = base, runtime, learner
        self.renderer: Renderer = base.renderer

    @classmethod
    def open(cls, settings: Settings) -> "LocalBackend":
        """Load the model that ``settings`` name and start its thread; it blocks while the weights are read.

        Raises:
            ModelError: the model cannot be used.
        """
        base = load_base(settings.model, device=settings.device, settings=settings.engine)
        recipe = Recipe.of(settings.recipe)
        if settings.service.learning == "always":
            recipe = recipe.always()
        runtime = Runtime(base, settings.engine, rank=settings.lora.r)
        kept = settings.engine.max_teacher_bytes
        return cls(base, runtime, HindsightLearner(base, recipe, settings.lora, teacher_cache_bytes=kept))

    @property
    def base_digest(self) -> str:
        return self.base.base_digest

    @property
    def max_model_len(self) -> int:
        return self.base.max_model_len

    def generate(self, request: GenerateRequest) -> AsyncIterator[TokenChunk]:
        """See ``InferenceBackend.generate``."""
        return self.runtime.generate(request)

    async def load_adapter(self, ref: AdapterRef) -> None:
        self.runtime.warm(ref)

    async def unload_adapter(self, ref: AdapterRef) -> None:
        """Let go of the version; its slot is zero when this returns, or when its last sequence ends."""
        await asyncio.wrap_future(self.runtime.unload(ref.name))

    async def run_update(
        self, lessons: Sequence[Lesson], parents: Sequence[AdapterRef | None], out_dirs: Sequence[Path]
    ) -> tuple[UpdateReport, ...]:
        """Return one report per lesson; see ``Learner.update``. Cancelling it abandons the update.

        A cancelled call returns when the learner has let go of ``out_dirs``.
        """
        run = self.runtime.run_update(partial(self.learner.update, lessons, parents, out_dirs))
        try:
            return await asyncio.wrap_future(run.reports)
        finally:
            await asyncio.shield(asyncio.wrap_future(run.closed))

    async def publish(self, ref: AdapterRef, tensors: Any) -> None:
        """Copy a committed version into a spare slot, if there is one; without tensors do nothing."""
        if tensors is not None:
            await asyncio.wrap_future(self.runtime.prepare(ref, tensors))

    async def prefill_again(self, ref: AdapterRef, conversations: Sequence[Sequence[int]]) -> None:
        """Compute the user's conversations under his new version while the device has nothing else to do."""
        self.runtime.prefill_again(ref, conversations)

    async def fingerprint(self, refs: Sequence[AdapterRef | None], prompts: Sequence[Sequence[int]]) -> tuple[str, ...]:
        """Return a digest of every adapter's logits on ``prompts``; see ``engine.fingerprint``."""
        return await asyncio.wrap_future(
            self.runtime.call(partial(fingerprints, self.runtime.engine, tuple(refs), tuple(prompts)))
        )

    async def explain(self, request: ExplainRequest) -> UpdateEffect:
        """Return what an applied update did to its reply; see ``learner.explanation``.

        Its passes are windows like those of updates, and take their turn among them. A cancelled call returns when
        the device thread has let go of it.

        Raises:
            AdapterError: a version's folder cannot be loaded.
            ContextTooLong: the turn does not fit the context any more.
            UnsupportedParameter: the learner has no recipe that says what it teaches towards.
        """
        recipe = getattr(self.learner, "recipe", None)
        if not isinstance(recipe, Recipe):
            raise UnsupportedParameter(f"{type(self.learner).__name__} cannot explain its updates", param="update")
        parent, version = await asyncio.to_thread(self._weights, request)
        return await self._result(self.runtime.run_update, effect_of(self.base, recipe, request, parent, version))

    async def review(self, request: ReviewRequest) -> Review | None:
        """Judge a version by what it says; see ``learner.review``. None where the learner has no recipe to judge by.

        Its passes are windows that run only while the device thread has nothing else to do. A cancelled call returns
        when the device thread has let go of it.

        Raises:
            AdapterError: the version's folder cannot be loaded.
        """
        recipe = getattr(self.learner, "recipe", None)
        if not isinstance(recipe, Recipe):
            return None
        version = await asyncio.to_thread(read_version, request.adapter, self.base)
        return await self._result(self.runtime.run_idle, review_of(self.base, recipe, request, version))

    async def _result(self, begin: Callable[[MakeWindows], UpdateRun], work: Generator[Window, None, T]) -> T:
        """Run ``work`` window by window and return what it comes to."""
        found: list[T] = []
        run = begin(partial(windows, work, found.append))
        try:
            await asyncio.wrap_future(run.reports)
        finally:
            await asyncio.shield(asyncio.wrap_future(run.closed))
        return found[0]

    def _weights(self, request: ExplainRequest) -> tuple[LoraTensors | None, LoraTensors]:
        """Read the parent and the version from disk; it blocks."""
        parent = None if request.parent is None else read_version(request.parent, self.base)
        return parent, read_version(request.adapter, self.base)

    def stats(self) -> dict[str, int]:
        """Return counts for monitoring; read without stopping the device thread, so each for itself."""
        scheduler, bank = self.runtime.engine.scheduler, self.runtime.engine.bank
        return {
            "num_running": sum(row is not None for row in scheduler.rows),
            "num_waiting": len(scheduler.waiting),
            "num_loaded": len(bank.names()),
            "num_pinned": bank.num_used(),
            "num_slots": bank.num_slots,
        }

    def loaded_adapters(self) -> tuple[str, ...]:
        """Return the names of the versions that are loaded, as of now."""
        return self.runtime.engine.bank.names()

    def remembered_users(self) -> frozenset[str]:
        """Return the ids of the users of whose conversations the learner keeps something, as of now."""
        learner = self.learner
        return learner.owners() if isinstance(learner, HindsightLearner) else frozenset()

    async def forget_user(self, user_id: str) -> None:
        """Let go of what the learner keeps of a user's conversations; none of his updates may run any more."""
        learner = self.learner
        if isinstance(learner, HindsightLearner):
            await asyncio.wrap_future(self.runtime.call(partial(learner.forget, user_id)))

    async def aclose(self) -> None:
        """End the device thread; what runs fails with ``Cancelled``."""
        await asyncio.to_thread(self.runtime.close)


def open_local(settings: Settings) -> Opened:
    """Return the local backend in the form that the service takes."""
    backend = LocalBackend.open(settings)
    # More users per pass save launches on a GPU; on a CPU they save little, and everybody's version waits for the last.
    max_batch = 16 if backend.base.device.type == "cuda" else 4
    modules = backend.base.targets
    return Opened(backend, backend, backend.renderer, backend.base_digest, backend.max_model_len, max_batch, modules)
