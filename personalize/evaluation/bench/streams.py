"""The longest gap that a stream sees while somebody's adapter is trained, over the median gap without learning."""

import asyncio
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median

import torch

from personalize.config import EngineSettings
from personalize.evaluation.bench.lessons import ONE_STEP, WHOLE, lesson, parents, warm_learner
from personalize.evaluation.bench.rows import LEFT_OUT, Row, missing
from personalize.evaluation.bench.scale import Scale
from personalize.evaluation.bench.serving import random_adapter, reference, request
from personalize.evaluation.bench.subject import Subject
from personalize.evaluation.bench.update import fits
from personalize.learner import HindsightLearner, Recipe
from personalize.runtime.device import Runtime
from personalize.types import AdapterRef, GenerateRequest, Lesson, Outcome

NUM_STREAMS = 4
"""Of the measurements beside which streams run; beside an update it is ``Scale.num_streams``."""
_GOAL = "≤ 3"


@dataclass(frozen=True, slots=True)
class Gaps:
    """What one run of the streams showed, in ms."""

    quiet: float
    longest: float


class Streams:
    """Replies that run side by side, and when each of their tokens came."""

    def __init__(self, runtime: Runtime, requests: Sequence[GenerateRequest]):
        """Start them; on an event loop."""
        self.times: list[list[float]] = [[] for _ in requests]
        self._grown = asyncio.Event()
        self._tasks = [
            asyncio.create_task(self._read(runtime, one, times))
            for one, times in zip(requests, self.times, strict=True)
        ]
        for task in self._tasks:
            task.add_done_callback(lambda _: self._grown.set())

    async def grow(self, tokens: int) -> None:
        """Return when every stream has had ``tokens`` more.

        Raises:
            RuntimeError: a stream has ended: nothing would be decoded beside the updates any more.
        """
        wanted = [len(times) + tokens for times in self.times]
        while any(len(times) < num for times, num in zip(self.times, wanted, strict=True)):
            if any(task.done() for task in self._tasks):
                raise RuntimeError("a stream ended before it was measured")
            self._grown.clear()
            await self._grown.wait()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def gaps(self, start: float, end: float) -> list[float]:
        """Return the gaps in ms, of all streams, that have a part between the two moments."""
        return [(b - a) * 1000 for times in self.times for a, b in pairwise(times) if b > start and a < end]

    async def _read(self, runtime: Runtime, one: GenerateRequest, times: list[float]) -> None:
        async for chunk in runtime.generate(one):
            if chunk.token_ids:
                times.append(time.perf_counter())
                self._grown.set()


def open_runtime(subject: Subject, max_num_seqs: int) -> Runtime:
    """Return a device thread over the shared weights with as many torch threads as this one has."""
    settings = EngineSettings(max_num_seqs=max_num_seqs, num_threads=torch.get_num_threads())
    return Runtime(subject.base, settings, vocabulary=subject.vocabulary)


def measure(subject: Subject, scale: Scale) -> list[Row]:
    """Measure streams beside one inner step, and beside the default recipe's whole update."""
    figure = f"longest gap of {scale.num_streams} streams beside an update over their median gap without"
    whole = (
        f"longest gap of {scale.num_streams} streams beside the default recipe's whole update "
        "over their median gap without"
    )
    history = scale.histories[0]
    if not fits(subject, history, scale.reply):
        return missing([figure, whole], f"{history} tokens of history do not fit the model's context")
    rows = [_row(figure, subject.goal(_GOAL), _runs(subject, scale, ONE_STEP, scale.stream_runs))]
    if not scale.recipe_rounds:
        return [*rows, *missing([whole], LEFT_OUT)]
    return [*rows, _row(whole, None, _runs(subject, scale, WHOLE, scale.recipe_rounds))]


def _row(figure: str, goal: str | None, runs: list[Gaps]) -> Row:
    return Row(
        figure=figure,
        value=median(run.longest / run.quiet for run in runs),
        goal=goal,
        n=len(runs),
        samples={"quiet": median(run.quiet for run in runs), "longest": median(run.longest for run in runs)},
    )


def _runs(subject: Subject, scale: Scale, recipe: Recipe, runs: int) -> list[Gaps]:
    learner = warm_learner(subject.base, recipe)
    history = scale.histories[0]
    taught = lesson(subject.base, 3, history, scale.reply, recipe)
    with parents(subject, 1) as (parent,):
        return [asyncio.run(_run(subject, scale, learner, taught, parent)) for _ in range(runs)]


async def _run(subject: Subject, scale: Scale, learner: HindsightLearner, taught: Lesson, parent: AdapterRef) -> Gaps:
    runtime = open_runtime(subject, scale.num_streams)
    refs = [reference(user) for user in range(scale.num_streams)]
    for user, ref in enumerate(refs):
        await asyncio.wrap_future(runtime.prepare(ref, random_adapter(subject.base, user)))
    streams = Streams(
        runtime, [request(subject, f"s{n}", ref, scale.prompt, _room(subject, scale), n) for n, ref in enumerate(refs)]
    )
    try:
        await streams.grow(3)
        quiet_from = time.perf_counter()
        await streams.grow(scale.stream_tokens)
        began = time.perf_counter()
        await _update(runtime, learner, taught, parent)
        ended = time.perf_counter()
        await streams.grow(2)  # the gap that was open when the update ended closes
        return Gaps(median(streams.gaps(quiet_from, began)), max(streams.gaps(began, ended)))
    finally:
        await streams.stop()
        await asyncio.to_thread(runtime.close)


def _room(subject: Subject, scale: Scale) -> int:
    return subject.base.max_model_len - scale.prompt


async def _update(runtime: Runtime, learner: HindsightLearner, taught: Lesson, parent: AdapterRef) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = runtime.run_update(partial(learner.update, [taught], [parent], [Path(folder) / "0"]))
        (report,) = await asyncio.wrap_future(run.reports)
    if report.outcome is not Outcome.APPLIED:
        raise RuntimeError(f"the update ended with {report.outcome}; only an applied one may be measured")
