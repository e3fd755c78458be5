"""Idle windows: only while there is nothing else, and no further than the window that runs."""

import asyncio
import threading
import time

import pytest

from personalize.config import EngineSettings
from personalize.errors import Cancelled
from personalize.runtime.device import Runtime
from personalize.types import Outcome, UpdateReport, Window
from tests.engine.stage import Letters, prompt, request
from tests.model.tiny import tiny_base

REPORTS = (UpdateReport("t", Outcome.APPLIED),)


@pytest.fixture
def runtime():
    runtime = Runtime(tiny_base(), EngineSettings(max_num_seqs=4), rank=4, vocabulary=Letters())
    yield runtime
    runtime.close()


class Idle:
    """Endless idle work that writes down in which company each window ran."""

    def __init__(self, runtime):
        self.runtime = runtime
        self.beside: list[tuple[bool, int]] = []
        self.closed = False

    def __call__(self):
        try:
            while True:
                self.beside.append((self.runtime.engine.has_work, len(self.runtime._updates)))
                yield Window()
                time.sleep(0.001)
        finally:
            self.closed = True

    def wait_for(self, count):
        deadline = time.monotonic() + 20
        while len(self.beside) < count:
            assert time.monotonic() < deadline
            time.sleep(0.002)


def test_alone_it_runs_to_its_end_and_the_thread_sleeps_again(runtime):
    work = runtime.run_idle(lambda: iter([Window(), Window(), Window(REPORTS)]))
    assert work.reports.result(20) == REPORTS
    assert runtime.call(lambda: len(runtime._idle)).result(20) == 0


def test_no_window_runs_beside_a_sequence_or_an_update(runtime):
    idle = Idle(runtime)
    run = runtime.run_idle(idle)
    idle.wait_for(3)
    during: list[int] = []

    def update():
        for _ in range(20):
            during.append(len(idle.beside))
            yield Window()
        yield Window(REPORTS)

    async def serve():
        async def talk(seed):
            return [chunk async for chunk in runtime.generate(request(prompt(5, seed), max_tokens=60))]

        waiting = asyncio.gather(talk(1), talk(2))
        reports = await asyncio.wrap_future(runtime.run_update(update).reports)
        await waiting
        return reports

    assert asyncio.run(serve()) == REPORTS
    assert len(set(during)) == 1, "not one window between the windows of an update"
    idle.wait_for(len(idle.beside) + 3)
    assert set(idle.beside) == {(False, 0)}
    assert run.reports.cancel()
    run.closed.result(20)
    assert idle.closed


def test_whoever_comes_waits_for_one_window_at_most(runtime, monkeypatch):
    started, go = threading.Event(), threading.Event()
    windows: list[int] = []
    before: list[int] = []  # how many windows had run when each step began
    step = runtime.engine.step

    def work():
        for number in range(1000):
            windows.append(number)
            started.set()
            go.wait(20)
            yield Window()

    def counted_step():
        before.append(len(windows))
        return step()

    monkeypatch.setattr(runtime.engine, "step", counted_step)
    run = runtime.run_idle(work)
    assert started.wait(20)

    async def serve():
        stream = runtime.generate(request(prompt(5, 1), max_tokens=30))
        first = asyncio.ensure_future(anext(stream))
        while runtime._inbox.empty():  # the window still runs, so nobody takes it out
            await asyncio.sleep(0.01)
        go.set()
        await first
        async for _ in stream:
            pass

    asyncio.run(serve())
    assert len(before) >= 30
    assert set(before) == {1}
    run.reports.cancel()
    run.closed.result(20)


def test_a_cancelled_one_lets_go_however_busy_the_thread_is(runtime):
    idle = Idle(runtime)
    run = runtime.run_idle(idle)
    idle.wait_for(1)
    behind = runtime.run_idle(Idle(runtime))

    async def serve():
        stream = runtime.generate(request(prompt(5, 1), max_tokens=240))
        await anext(stream)
        for one in (behind, run):
            one.reports.cancel()
            await asyncio.to_thread(one.closed.result, 20)
        assert idle.closed and runtime.engine.has_work
        await stream.aclose()

    asyncio.run(serve())
    assert runtime.call(lambda: len(runtime._idle)).result(20) == 0


def test_a_fault_in_it_is_told_and_the_thread_lives(runtime):
    with pytest.raises(ZeroDivisionError):
        runtime.run_idle(lambda: 1 / 0).reports.result(20)
    assert runtime.call(lambda: 3).result(20) == 3


def test_closing_ends_it(runtime):
    idle = Idle(runtime)
    run = runtime.run_idle(idle)
    idle.wait_for(1)
    runtime.close()
    with pytest.raises(Cancelled):
        run.reports.result(10)
    assert run.closed.done() and idle.closed
    with pytest.raises(Cancelled):
        runtime.run_idle(idle)
