"""Steps between two layers of a learner's pass: streams go on, and neither side changes a bit of the other."""

import asyncio
import threading
import time
from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
import torch

from personalize.config import EngineSettings, LoraSettings
from personalize.engine.sequences import Phase
from personalize.errors import Cancelled, ModelError
from personalize.learner import HindsightLearner
from personalize.model.base import BaseModel
from personalize.model.rows import AdapterRows
from personalize.runtime.device import Runtime
from personalize.types import LearningState, Lesson, Outcome, UpdateReport, Window
from tests.engine.stage import Letters, make_ref, prompt, request
from tests.learner.conftest import EVERY_TURN, CharacterRenderer, experience
from tests.model.tiny import FAMILIES, random_adapter, random_ids, tiny_base, tiny_module

REPORTS = (UpdateReport("t", Outcome.APPLIED),)
NUM_STREAMS = 3


def open_runtime(base) -> Runtime:
    return Runtime(base, EngineSettings(max_num_seqs=4), rank=4, vocabulary=Letters())


@pytest.fixture
def runtime():
    runtime = open_runtime(tiny_base())
    yield runtime
    runtime.close()
    assert not runtime._thread.is_alive()


@pytest.fixture
def always_due(monkeypatch):
    """A step between any two layers, however fast the machine is."""
    monkeypatch.setattr("personalize.runtime.pace.Pace.is_due", lambda self: True)


def teachable(family: str = "llama") -> BaseModel:
    """Return a model whose prompts the learner can render."""
    return BaseModel(tiny_module(family), base_digest="0" * 64, renderer=CharacterRenderer())  # pyright: ignore


def learner_on(runtime) -> HindsightLearner:
    recipe = replace(EVERY_TURN, num_steps=1, replay=1)
    return HindsightLearner(runtime.engine.base, recipe, LoraSettings(r=4, lora_alpha=8))


def update(learner, runtime, folder):
    """Start a real update of one user."""
    lesson = Lesson(experience(1), (experience(2),), LearningState(replay=(experience(2).turn_id,)))
    return runtime.run_update(partial(learner.update, [lesson], [None], [folder]))


async def run_to_end(run):
    (report,) = await asyncio.wrap_future(run.reports)
    return report


def is_same(report, other) -> bool:
    numbers = [{name: value for name, value in r.metrics.items() if name != "update_ms"} for r in (report, other)]
    pairs = zip(report.tensors.parameters(), other.tensors.parameters(), strict=True)
    return numbers[0] == numbers[1] and all(torch.equal(one, two) for one, two in pairs)


async def read(runtime, req):
    return [token async for chunk in runtime.generate(req) for token in chunk.token_ids]


async def serve(runtime, max_tokens):
    """Read streams of different users side by side."""
    refs = [None, *(make_ref(user) for user in range(1, NUM_STREAMS))]
    for user in range(1, NUM_STREAMS):
        await asyncio.wrap_future(runtime.prepare(refs[user], random_adapter(runtime.engine.base, user)))
    requests = [request(prompt(4 + n, n), refs[n], max_tokens=max_tokens) for n in range(NUM_STREAMS)]
    return await asyncio.gather(*(read(runtime, one) for one in requests))


def passes(base, until, seconds=20.0):
    """Run passes of one window until ``until()``."""
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline
        with torch.no_grad():
            base.hidden(random_ids((2, 8)))


@pytest.mark.parametrize("family", FAMILIES)
def test_an_update_and_the_streams_beside_it_are_those_of_each_alone(family, tmp_path, always_due, monkeypatch):
    runtime = open_runtime(teachable(family))
    inside = []
    step = runtime.engine.step
    try:
        learner = learner_on(runtime)
        (alone,) = update(learner, runtime, tmp_path / "alone").reports.result(20)
        quiet = asyncio.run(serve(runtime, 60))
        monkeypatch.setattr(runtime.engine, "step", lambda: (inside.append(runtime._in_window), step())[1])

        async def both():
            run = update(learner, runtime, tmp_path / "beside")
            return await serve(runtime, 60), await run_to_end(run)

        beside, report = asyncio.run(both())
    finally:
        runtime.close()
    assert alone.outcome is report.outcome is Outcome.APPLIED
    assert is_same(report, alone) and beside == quiet
    assert sum(inside) > 40, "hardly a step ran between two layers"


def test_a_stream_gets_a_token_between_any_two_layers_of_one_pass(runtime, always_due):
    base, gained = runtime.engine.base, []

    def windows():
        while not (running := runtime.engine.scheduler.running(Phase.DECODE)):
            yield Window()
        adapter = random_adapter(base, 1).copy(requires_grad=True)
        counts = [running[0].num_new]
        hidden = base.hidden(random_ids((1, 8)), rows=AdapterRows.of([adapter]))
        counts.append(running[0].num_new)
        hidden.square().mean().backward()
        counts.append(running[0].num_new)
        gained.extend(later - earlier for earlier, later in pairwise(counts))
        yield Window(REPORTS)

    async def main():
        run = runtime.run_update(windows)
        tokens = await read(runtime, request(prompt(5, 1), max_tokens=60))
        return tokens, await asyncio.wrap_future(run.reports)

    tokens, reports = asyncio.run(main())
    assert reports == REPORTS and len(tokens) == 60
    assert gained == [len(base.targets), len(base.targets)]


@pytest.mark.parametrize("kind", ["run_update", "run_idle"])
def test_who_comes_and_goes_during_a_pass_does_not_wait_for_its_end(runtime, kind):
    base, started, served = runtime.engine.base, threading.Event(), threading.Event()
    windows_over = []

    def windows():
        started.set()
        passes(base, served.is_set)
        passes(base, lambda: not runtime.engine.has_work)
        windows_over.append(1)
        yield Window(REPORTS)

    async def main():
        run = getattr(runtime, kind)(windows)
        await asyncio.to_thread(started.wait, 20)
        stream = runtime.generate(request(prompt(5, 1), max_tokens=200))
        for _ in range(3):
            await anext(stream)
        assert not windows_over
        served.set()
        await stream.aclose()
        return await asyncio.wrap_future(run.reports)

    assert asyncio.run(main()) == REPORTS


def test_versions_come_and_go_during_a_pass_and_everything_else_waits_for_its_end(runtime):
    base, started, over = runtime.engine.base, threading.Event(), threading.Event()
    asked = []

    def windows():
        started.set()
        passes(base, lambda: len(asked) == 3 and asked[0].done() and asked[1].done())
        asked.append(asked[2].done())
        over.set()
        yield Window()
        assert asked[2].done()
        yield Window(REPORTS)

    run = runtime.run_update(windows)
    assert started.wait(20)
    ref = make_ref(1)
    asked.append(runtime.prepare(ref, random_adapter(base, 1)))
    asked.append(runtime.unload(ref.name))
    asked.append(runtime.call(lambda: over.is_set()))
    assert run.reports.result(20) == REPORTS
    assert asked[0].result(20) is True and asked[3] is False
    assert asked[2].result(20) is True


@pytest.mark.parametrize("where", ["forward", "bookkeeping"])
def test_a_step_that_fails_inside_a_pass_hurts_its_streams_and_not_the_update(where, tmp_path, always_due, monkeypatch):
    runtime = open_runtime(teachable())
    try:
        learner = learner_on(runtime)
        (alone,) = update(learner, runtime, tmp_path / "alone").reports.result(20)
        owner, name = (runtime.engine.runner, "decode") if where == "forward" else (runtime.engine.scheduler, "admit")
        real = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *args: 1 / 0 if runtime._in_window else real(*args))

        async def main():
            stream = runtime.generate(request(prompt(5, 1), max_tokens=240))
            await anext(stream)
            run = update(learner, runtime, tmp_path / "beside")
            with pytest.raises(ModelError):
                async for _ in stream:
                    pass
            return await run_to_end(run)

        report = asyncio.run(main())
        monkeypatch.undo()
        assert is_same(report, alone)
        assert len(asyncio.run(read(runtime, request(prompt(5, 1))))) == 12
    finally:
        runtime.close()


@pytest.mark.parametrize("half", ["forward", "backward"])
def test_an_update_that_fails_in_the_middle_of_a_pass_does_not_hurt_a_stream(runtime, always_due, half):
    base = runtime.engine.base
    expected = asyncio.run(read(runtime, request(prompt(5, 1), max_tokens=60)))

    def windows():
        while not runtime.engine.scheduler.running(Phase.DECODE):
            yield Window()
        adapter = random_adapter(base, 1).copy(requires_grad=True)
        hidden = base.hidden(random_ids((1, 8)), rows=AdapterRows.of([adapter]))
        hidden.register_hook(lambda _: 1 / 0)
        with base.using(AdapterRows.of([adapter])):
            base.hidden(random_ids((1, 8)))
            hidden.sum().backward() if half == "backward" else 1 / 0

    async def main():
        run = runtime.run_update(windows)
        tokens = await read(runtime, request(prompt(5, 1), max_tokens=60))
        with pytest.raises(ZeroDivisionError):
            await asyncio.wrap_future(run.reports)
        return tokens

    assert asyncio.run(main()) == expected
    assert asyncio.run(read(runtime, request(prompt(5, 1), max_tokens=60))) == expected


def test_an_update_cancelled_during_a_pass_ends_with_its_window_and_the_stream_goes_on(runtime):
    base, started, cancelled, closed = runtime.engine.base, threading.Event(), threading.Event(), []

    def windows():
        try:
            started.set()
            passes(base, cancelled.is_set)
            yield Window()
            raise AssertionError("a window too many")
        finally:
            closed.append(1)

    async def main():
        run = runtime.run_update(windows)
        await asyncio.to_thread(started.wait, 20)
        stream = asyncio.create_task(read(runtime, request(prompt(5, 1), max_tokens=100)))
        run.reports.cancel()
        cancelled.set()
        await asyncio.wrap_future(run.closed)
        return await stream

    assert len(asyncio.run(main())) == 100 and closed == [1]


def test_closing_during_a_pass_answers_everybody():
    runtime = open_runtime(tiny_base())
    base, started, ended = runtime.engine.base, threading.Event(), threading.Event()
    postponed = []

    def windows():
        started.set()
        passes(base, lambda: runtime._inbox.closing)
        num_new = runtime.engine.scheduler.running()[0].num_new
        base.hidden(random_ids((1, 8)))
        assert runtime.engine.scheduler.running()[0].num_new == num_new, "a step after the end"
        ended.set()
        yield Window()

    async def main():
        run = runtime.run_update(windows)
        await asyncio.to_thread(started.wait, 20)
        stream = runtime.generate(request(prompt(5, 1), max_tokens=240))
        await anext(stream)
        postponed.append(runtime.call(lambda: 3))
        while not runtime._postponed:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(runtime.close)
        with pytest.raises(Cancelled):
            async for _ in stream:
                pass
        with pytest.raises(Cancelled):
            await asyncio.wrap_future(run.reports)

    asyncio.run(main())
    assert ended.is_set() and postponed[0].result(20) == 3
