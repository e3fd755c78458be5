"""Whole replies without adapters: our engine over transformers' ``generate`` and its continuous batching."""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import ContinuousBatchingConfig, GenerationConfig

from personalize.engine.engine import Engine
from personalize.evaluation.bench.decode import step_side, users_of
from personalize.evaluation.bench.peers import generate
from personalize.evaluation.bench.rows import Row
from personalize.evaluation.bench.samples import elapsed_ms, in_turn, wait_for
from personalize.evaluation.bench.scale import Scale
from personalize.evaluation.bench.serving import load_adapters, request
from personalize.evaluation.bench.subject import Subject
from personalize.types import AdapterRef

_PAGE = 64


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request of the staggered load: when it comes, in decode steps, and its lengths in tokens."""

    at_steps: float
    prompt: int
    new_tokens: int


def measure_equal(subject: Subject, scale: Scale) -> list[Row]:
    """Measure equal rows that all begin together: tokens/s over plain ``generate``."""
    engine = subject.engine(scale.batch)
    prompts = [subject.prompt(scale.prompt, row) for row in range(scale.batch)]

    def ours() -> None:
        for row in range(scale.batch):
            engine.add(request(subject, f"r{row}", None, scale.prompt, scale.new_tokens, seed=row))
        _counted(engine, scale.batch * scale.new_tokens)

    sides = {
        "ours": lambda: elapsed_ms(ours, subject.device),
        "generate": lambda: elapsed_ms(lambda: generate(subject.stock, prompts, scale.new_tokens), subject.device),
    }
    samples = in_turn(sides, scale.rounds)
    engine.close()
    return [
        Row(
            figure=f"engine without adapters, {scale.batch} equal rows, tokens/s over generate",
            value=samples.ratio("generate", "ours"),
            goal=subject.goal("≥ 1.0"),
            n=scale.rounds,
            samples=samples.medians(),
        )
    ]


def measure_continuous(subject: Subject, scale: Scale) -> list[Row]:
    """Measure the same replies in transformers' continuous batching, over plain ``generate``."""
    prompts = [list(subject.prompt(scale.prompt, row)) for row in range(scale.batch)]

    def continuous() -> None:
        given = subject.stock.generate_batch(
            inputs=prompts,
            generation_config=GenerationConfig(
                do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=scale.new_tokens,
                eos_token_id=-1, pad_token_id=0,
            ),
            continuous_batching_config=_pages(scale),
            persistent_manager=True,
            progress_bar=False,
        )  # fmt: skip
        lengths = [len(one.generated_tokens) for one in given.values()]
        if lengths != [scale.new_tokens] * scale.batch:
            raise RuntimeError(f"continuous batching gave {lengths} tokens")

    continuous()  # its cache is built once
    sides = {
        "continuous": lambda: elapsed_ms(continuous, subject.device),
        "generate": lambda: elapsed_ms(lambda: generate(subject.stock, prompts, scale.new_tokens), subject.device),
    }
    samples = in_turn(sides, scale.rounds)
    subject.stock.destroy_cached_continuous_batching_manager()
    return [
        Row(
            figure=f"transformers continuous batching, {scale.batch} equal rows, tokens/s over generate",
            value=samples.ratio("generate", "continuous"),
            n=scale.rounds,
            samples=samples.medians(),
        )
    ]


def _pages(scale: Scale) -> ContinuousBatchingConfig:
    """Return room for exactly this load; by itself it would take most of the memory."""
    each = -(-(scale.prompt + scale.new_tokens + 1) // _PAGE) + 1
    # The first by its place: transformers 5.17 calls it block_size, later ones page_size.
    return ContinuousBatchingConfig(
        _PAGE, num_blocks=scale.batch * each, max_batch_tokens=scale.batch * (scale.prompt + 1)
    )


def measure_staggered(subject: Subject, scale: Scale) -> list[Row]:
    """Measure requests of mixed lengths that arrive one by one, over ``generate`` on whoever waits.

    The peer takes up to a batch of those that have arrived, pads them, and runs until the longest reply is done;
    only the tokens that were asked for count. Arrivals are the same moments of wall time on both sides.
    """
    engine = subject.engine(scale.batch)
    ratio, samples = _staggered(subject, scale, engine, [None] * scale.requests)
    name = "engine without adapters, staggered arrivals and mixed lengths, tokens/s over padded generate"
    return [Row(name, ratio, goal=subject.goal("≥ 1.5"), n=scale.rounds, samples=samples)]


def measure_zipf(subject: Subject, scale: Scale) -> list[Row]:
    """Measure the same load with adapters, users drawn by zipf, over ``generate`` without any."""
    engine = subject.engine(scale.batch)
    refs = load_adapters(engine, scale.batch)
    users = [refs[user % scale.batch] for user in users_of("zipf", scale.requests)]
    ratio, samples = _staggered(subject, scale, engine, users)
    name = "engine with zipf users' adapters, the same staggered load, tokens/s over padded generate"
    return [Row(name, ratio, n=scale.rounds, samples=samples)]


def _staggered(
    subject: Subject, scale: Scale, engine: Engine, refs: Sequence[AdapterRef | None]
) -> tuple[float, dict[str, float]]:
    """Return the tokens/s over the peer's, and what it was made from; one adapter of ``refs`` for each request."""
    step_ms = step_side(subject, engine, [None] * scale.batch, scale)()
    load = arrivals(scale)
    sides = {
        "ours": lambda: elapsed_ms(lambda: _serve(subject, engine, load, refs, step_ms), subject.device),
        "generate": lambda: elapsed_ms(lambda: _serve_padded(subject, scale, load, step_ms), subject.device),
    }
    samples = in_turn(sides, scale.rounds)
    engine.close()
    told = {**samples.medians(), "requests (number)": scale.requests, "step": step_ms}
    return samples.ratio("generate", "ours"), told


def arrivals(scale: Scale) -> list[Arrival]:
    """Return the staggered load: one more request after every step or so, prompts and replies of mixed lengths."""
    draws = random.Random(0)
    load, at = [], 0.0
    for _ in range(scale.requests):
        prompt = draws.choice((1, 2, 4, 8)) * scale.prompt
        load.append(Arrival(at, prompt, max(1, round(draws.choice((0.25, 0.5, 1.0, 2.0)) * scale.new_tokens))))
        at += draws.expovariate(1.0)
    return load


def _serve(
    subject: Subject, engine: Engine, load: Sequence[Arrival], refs: Sequence[AdapterRef | None], step_ms: float
) -> None:
    began, waiting, given = time.perf_counter(), list(load), 0
    while waiting or engine.has_work:
        while waiting and _has_come(waiting[0], began, step_ms):
            one = waiting.pop(0)
            number = len(load) - len(waiting) - 1
            engine.add(request(subject, f"r{number}", refs[number], one.prompt, one.new_tokens, seed=number))
        if engine.has_work:
            given += sum(len(output.chunk.token_ids) for output in engine.step() if output.chunk is not None)
        elif waiting:
            _sleep_until(waiting[0], began, step_ms)
    _check(given, sum(one.new_tokens for one in load))


def _serve_padded(subject: Subject, scale: Scale, load: Sequence[Arrival], step_ms: float) -> None:
    began, waiting = time.perf_counter(), list(load)
    while waiting:
        _sleep_until(waiting[0], began, step_ms)
        batch = [one for one in waiting if _has_come(one, began, step_ms)][: scale.batch]
        prompts = [subject.prompt(one.prompt, seed) for seed, one in enumerate(batch)]
        generate(subject.stock, prompts, max(one.new_tokens for one in batch))
        wait_for(subject.device)
        waiting = waiting[len(batch) :]


def _counted(engine: Engine, expected: int) -> None:
    given = 0
    while engine.has_work:
        given += sum(len(output.chunk.token_ids) for output in engine.step() if output.chunk is not None)
    _check(given, expected)


def _check(given: int, expected: int) -> None:
    if given != expected:
        raise RuntimeError(f"the engine gave {given} tokens, not {expected}: a reply ended early")


def _has_come(one: Arrival, began: float, step_ms: float) -> bool:
    return (time.perf_counter() - began) * 1000 >= one.at_steps * step_ms


def _sleep_until(one: Arrival, began: float, step_ms: float) -> None:
    time.sleep(max(0.0, began + one.at_steps * step_ms / 1000 - time.perf_counter()))
