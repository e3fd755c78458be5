"""Idle re-prefill on the device thread: alone only, and gone as soon as there is anything else."""

import asyncio
import threading
import time

import pytest

from personalize.config import EngineSettings
from personalize.engine import prefixes
from personalize.runtime.device import Runtime
from personalize.types import Outcome, UpdateReport, Window
from tests.engine.stage import Letters, make_ref, prompt, request
from tests.model.tiny import random_adapter, tiny_base

REPORTS = (UpdateReport("t", Outcome.APPLIED),)


@pytest.fixture
def runtime():
    runtime = Runtime(tiny_base(), EngineSettings(max_num_seqs=4), rank=4, vocabulary=Letters())
    yield runtime
    runtime.close()


class Layers:
    """Stops re-prefilling passes behind one of their layers until it is told to go on, and counts what they ran."""

    def __init__(self, runtime, monkeypatch):
        self.reached, self.go = threading.Event(), threading.Event()
        self.passes = 0
        real, give_way = runtime.engine.prefixes.advance, runtime._give_way

        def advance():
            self.passes += 1
            real()

        def stop_here():
            self.reached.set()
            assert self.go.wait(20)
            give_way()

        monkeypatch.setattr(runtime.engine.prefixes, "advance", advance)
        monkeypatch.setattr(runtime, "_give_way", stop_here)


def publish(runtime, user=1, number=1):
    ref = make_ref(user, number)
    assert runtime.prepare(ref, random_adapter(runtime.engine.base, 100 * user + number)).result(20)
    return ref


def kept(runtime):
    """What is kept; asking stops the pass that runs."""
    return runtime.call(lambda: [(one.ref, one.num_cached) for one in runtime.engine.prefixes]).result(20)


def kept_now(runtime):
    """How many tokens of each are there, read from another thread."""
    return tuple(one.num_cached for one in runtime.engine.prefixes)


def wait_for(true):
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


async def read(runtime, req):
    return [token async for chunk in runtime.generate(req) for token in chunk.token_ids]


def test_alone_it_is_done_and_the_next_turn_says_what_it_would_have_said(runtime, monkeypatch):
    monkeypatch.setattr(prefixes, "CHUNK_TOKENS", 32)
    ref, talk = publish(runtime), prompt(100, 1)
    following = request([*talk, *prompt(8, 2)], ref)
    plain = asyncio.run(read(runtime, following))
    runtime.prefill_again(ref, [talk])
    wait_for(lambda: kept_now(runtime) == (100,))  # asking the thread would stop every pass, on a slow machine for ever
    assert kept(runtime) == [(ref, 100)]
    assert asyncio.run(read(runtime, following)) == plain
    assert runtime.call(lambda: runtime.engine.bank.num_used()).result(20) == 0


def test_a_request_stops_the_pass_between_two_layers_and_is_served_first(runtime, monkeypatch):
    ref, talk = publish(runtime), prompt(100, 1)
    layers = Layers(runtime, monkeypatch)
    during = []
    step = runtime.engine.step
    monkeypatch.setattr(runtime.engine, "step", lambda: during.append((layers.passes, kept_now(runtime))) or step())
    runtime.prefill_again(ref, [talk])
    assert layers.reached.wait(20)

    async def serve():
        reply = asyncio.ensure_future(read(runtime, request(prompt(5, 3), max_tokens=20)))
        while runtime._inbox.empty():  # the pass stands still behind its first layer
            await asyncio.sleep(0.005)
        layers.go.set()
        return await reply

    assert len(asyncio.run(serve())) == 20
    assert set(during) == {(1, (0,))}, "not one chunk was computed, nor another pass begun, beside the reply"
    wait_for(lambda: kept_now(runtime) == (100,))
    assert layers.passes == 2


def test_an_update_and_a_publish_stop_it_too(runtime, monkeypatch):
    ref, talk = publish(runtime), prompt(100, 1)
    layers = Layers(runtime, monkeypatch)
    runtime.prefill_again(ref, [talk])
    assert layers.reached.wait(20)
    beside = []

    def update():
        for _ in range(5):
            beside.append((layers.passes, kept_now(runtime)))
            yield Window()
        yield Window(REPORTS)

    run = runtime.run_update(update)
    layers.go.set()
    assert run.reports.result(20) == REPORTS
    assert set(beside) == {(1, (0,))}
    wait_for(lambda: kept_now(runtime) == (100,))
    layers.reached.clear()
    layers.go.clear()
    runtime.prefill_again(ref, [prompt(90, 4)])
    assert layers.reached.wait(20)
    newer = runtime.prepare(make_ref(1, 2), random_adapter(runtime.engine.base, 7))
    layers.go.set()
    assert newer.result(20)
    assert kept_now(runtime) == () and layers.passes == 3, (
        "a version that is not the newest any more is not worth a pass"
    )


def test_closing_does_not_wait_for_it(runtime, monkeypatch):
    ref = publish(runtime)
    layers = Layers(runtime, monkeypatch)
    runtime.prefill_again(ref, [prompt(100, 1)])
    assert layers.reached.wait(20)
    closing = threading.Thread(target=runtime.close)
    closing.start()
    wait_for(lambda: runtime._inbox.closing)
    layers.go.set()
    closing.join(20)
    assert not closing.is_alive() and layers.passes == 1
