"""Rows of an engine that really decode, each on the adapter that it was given."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from personalize.config import LoraSettings
from personalize.engine.engine import Engine
from personalize.engine.sequences import Phase
from personalize.engine.sequences import Sequence as Running
from personalize.evaluation.bench.subject import Subject
from personalize.model.base import BaseModel
from personalize.model.folder import new_adapter
from personalize.model.lora import LoraTensors
from personalize.types import AdapterRef, GenerateRequest, SamplingParams

_WARM_STEPS = 2


def random_adapter(base: BaseModel, seed: int, rank: int = 8) -> LoraTensors:
    """Return an adapter with small random weights; a new one has zeros that a shortcut could profit from."""
    tensors = new_adapter(base, LoraSettings(r=rank, lora_alpha=2 * rank), seed=seed)
    for index, b in enumerate(tensors.b.values()):
        b.copy_(torch.empty(b.shape).normal_(std=1e-3, generator=torch.Generator().manual_seed(seed * 1000 + index)))
    return tensors


def reference(user: int, number: int = 1, path: str = "/nowhere") -> AdapterRef:
    """Return the name of a version that no store knows."""
    return AdapterRef(f"u_{user:032x}@{number}-{user:016x}", path)


def load_adapters(engine: Engine, count: int, rank: int = 8) -> list[AdapterRef]:
    """Put ``count`` adapters into slots of their own."""
    refs = [reference(user) for user in range(count)]
    for user, ref in enumerate(refs):
        if not engine.prepare(ref, random_adapter(engine.base, user, rank)):
            raise RuntimeError(f"{count} adapters do not fit the engine's {engine.bank.num_slots} slots")
    return refs


def request(
    subject: Subject, name: str, ref: AdapterRef | None, prompt: int, max_tokens: int, seed: int = 0
) -> GenerateRequest:
    """Return a request of ``prompt`` random tokens; drawn at temperature 1, as `generate` does it here."""
    sampling = SamplingParams(temperature=1.0, max_tokens=max_tokens, seed=seed + 1)
    return GenerateRequest(name, subject.prompt(prompt, seed), sampling, ref)


@contextmanager
def decoding(
    subject: Subject, engine: Engine, refs: Sequence[AdapterRef | None], prompt: int, steps: int
) -> Iterator[None]:
    """Hold one decoding sequence per entry of ``refs``, past prompt and warm-up, for ``steps`` engine steps.

    Raises:
        RuntimeError: a row runs on another slot than its adapter's, or did not get a token in every step.
    """
    budget = steps + _WARM_STEPS + len(refs) + 2
    running = [engine.add(request(subject, f"row{row}", ref, prompt, budget, seed=row)) for row, ref in enumerate(refs)]
    try:
        while engine.has_work and any(sequence.num_new == 0 for sequence in running):
            engine.step()
        for _ in range(_WARM_STEPS):
            engine.step()
        _check_slots(engine, running, refs)
        before = [sequence.num_new for sequence in running]
        yield
        told = [sequence.num_new - num for sequence, num in zip(running, before, strict=True)]
        if told != [steps] * len(refs):
            raise RuntimeError(f"{steps} steps gave the rows {told} tokens: not every row decoded")
    finally:
        for sequence in running:
            engine.cancel(sequence)


def _check_slots(engine: Engine, running: Sequence[Running], refs: Sequence[AdapterRef | None]) -> None:
    slots = {ref.name if ref else None: sequence.slot for sequence, ref in zip(running, refs, strict=True)}
    distinct = len({ref.name if ref else None for ref in refs})
    bases = [sequence.slot for sequence, ref in zip(running, refs, strict=True) if ref is None]
    if len(set(slots.values())) != distinct or any(bases) or any(s.phase is not Phase.DECODE for s in running):
        raise RuntimeError("the rows do not decode with the adapters that they were given")


def drain(engine: Engine) -> None:
    """Step until nothing is left."""
    while engine.has_work:
        if engine.is_blocked:
            engine.wait_ready(5.0)
        engine.step()
