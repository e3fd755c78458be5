"""From a new version to its first token: behind a commit, from a cold disk, and after a long history."""

import asyncio
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from personalize.engine.engine import Engine
from personalize.evaluation.bench.rows import Row
from personalize.evaluation.bench.samples import Samples, elapsed_ms, in_turn
from personalize.evaluation.bench.scale import Scale
from personalize.evaluation.bench.serving import load_adapters, random_adapter, reference, request
from personalize.evaluation.bench.streams import NUM_STREAMS, Streams, open_runtime
from personalize.evaluation.bench.subject import Subject
from personalize.model.folder import CONFIG_FILE, WEIGHTS_FILE, content_digest, write_adapter
from personalize.runtime.device import Runtime
from personalize.types import AdapterRef

NEW_TOKENS = 32
"""Of the user's newest message, behind a conversation that was prefilled again."""
_PUBLISHES = 8


def measure_swap(subject: Subject, scale: Scale) -> list[Row]:
    """Measure from the store's commit until the version can be taken by the next admission, beside four streams."""
    waits, step_ms = asyncio.run(_swap(subject, scale))
    return [
        Row(
            figure=f"commit to served, {NUM_STREAMS} streams running, in decode steps",
            value=median(waits) / step_ms,
            unit="steps",
            goal=subject.goal("≤ 1"),
            n=len(waits),
            samples={"wait": median(waits), "longest wait": max(waits), "decode step": step_ms},
        )
    ]


async def _swap(subject: Subject, scale: Scale) -> tuple[list[float], float]:
    runtime = open_runtime(subject, NUM_STREAMS)
    room = subject.base.max_model_len - scale.prompt
    refs = [reference(user) for user in range(NUM_STREAMS)]
    for user, ref in enumerate(refs):
        await asyncio.wrap_future(runtime.prepare(ref, random_adapter(subject.base, user)))
    streams = Streams(runtime, [request(subject, f"s{n}", ref, scale.prompt, room, n) for n, ref in enumerate(refs)])
    try:
        await streams.grow(3)
        began = time.perf_counter()
        await streams.grow(scale.stream_tokens)
        step_ms = median(streams.gaps(began, time.perf_counter()))
        waits = [await _published(subject, runtime, streams, number, step_ms) for number in range(_PUBLISHES)]
        return waits, step_ms
    finally:
        await streams.stop()
        await asyncio.to_thread(runtime.close)


async def _published(subject: Subject, runtime: Runtime, streams: Streams, number: int, step_ms: float) -> float:
    """Return the ms until a version of the first user's can be admitted."""
    ref, tensors = reference(0, 2 + number), random_adapter(subject.base, 100 + number)
    await streams.grow(1)
    await asyncio.sleep(step_ms / 1000 * (number + 0.5) / _PUBLISHES)  # a commit comes anywhere within a step
    began = time.perf_counter()
    loaded = await asyncio.wrap_future(runtime.prepare(ref, tensors))
    took = (time.perf_counter() - began) * 1000
    if not loaded or ref.name not in runtime.engine.bank:
        raise RuntimeError("the version found no slot: its first use would read the disk")
    return took


def measure_cold(subject: Subject, scale: Scale) -> list[Row]:
    """Measure the first token under a version that lies on the disk, against one that is in a slot."""
    rounds = max(scale.rounds, 3)
    engine = subject.engine(1, max_loras=1 + rounds)  # the warm one must not have to go for the cold ones
    (warm,) = load_adapters(engine, 1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_adapter(folder, random_adapter(subject.base, 1), subject.base)
        digest = content_digest(*((folder / name).read_bytes() for name in (CONFIG_FILE, WEIGHTS_FILE)))
        numbers = iter(range(2, 1_000_000))

        def cold() -> float:
            _drop_from_cache(folder)
            ref = AdapterRef(f"u_{1:032x}@{next(numbers)}-{digest[:16]}", str(folder))
            return first_token_ms(subject, engine, ref, scale.prompt)

        sides = {"warm": lambda: first_token_ms(subject, engine, warm, scale.prompt), "cold": cold}
        samples = in_turn(sides, rounds)
    engine.close()
    later = [cold - warm for cold, warm in zip(samples.rounds["cold"], samples.rounds["warm"], strict=True)]
    return [
        Row(
            figure="first token with a cold adapter, later than with a warm one",
            value=median(later),
            unit="ms",
            goal=subject.goal("≤ 30"),
            n=samples.num_rounds,
            reason="read from the disk and checked for digest, form and finite values",
            samples=samples.medians(),
        )
    ]


def measure_first_token(subject: Subject, scale: Scale) -> list[Row]:
    """Measure the first token after a publish behind a long history, over a plain prefill of the same prompt.

    A second figure is for a conversation that was prefilled again in idle time: all but the user's newest message.
    """
    length = min(scale.long_prompt, subject.base.max_model_len - 8)
    figure = f"first token after a publish, {length}-token history, over a plain prefill"
    engine = subject.engine(2)
    versions = iter(range(2, 1_000_000))

    def publish() -> AdapterRef:
        ref = reference(1, next(versions))
        if not engine.prepare(ref, random_adapter(subject.base, 1)):
            raise RuntimeError("the version found no slot")
        return ref

    def prefilled_again() -> float:
        ref = publish()
        engine.prefill_again(ref, [subject.prompt(length, 0)[:-NEW_TOKENS]])
        while engine.prefixes.has_work:
            engine.prefixes.advance()
        if not len(engine.prefixes):
            raise RuntimeError("the conversation was not kept")
        return first_token_ms(subject, engine, ref, length)

    sides = {
        "published": lambda: first_token_ms(subject, engine, publish(), length),
        "prefilled again": prefilled_again,
        "plain": lambda: first_token_ms(subject, engine, None, length),
    }
    samples: Samples = in_turn(sides, scale.rounds)
    engine.close()
    return [
        Row(name, samples.ratio(side, "plain"), goal=subject.goal(goal), n=scale.rounds, samples=samples.medians())
        for name, side, goal in (
            (figure, "published", "≤ 1.1"),
            (f"{figure}, after idle re-prefill", "prefilled again", "≤ 0.2"),
        )
    ]


def first_token_ms(subject: Subject, engine: Engine, ref: AdapterRef | None, prompt: int) -> float:
    """Return the ms from handing a request in to its first token."""
    sequence = engine.add(request(subject, "first", ref, prompt, 2))
    took = elapsed_ms(_until_first_token(engine, lambda: sequence.num_new > 0), subject.device)
    engine.cancel(sequence)
    return took


def _until_first_token(engine: Engine, has_come: Callable[[], bool]) -> Callable[[], None]:
    def work() -> None:
        while not has_come():
            if not engine.has_work:
                raise RuntimeError("the request failed before its first token")
            if engine.is_blocked:
                engine.wait_ready(5.0)
            engine.step()

    return work


def _drop_from_cache(folder: Path) -> None:
    """Ask the operating system to forget the folder's pages, where it can be asked."""
    if not hasattr(os, "posix_fadvise"):
        return
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
