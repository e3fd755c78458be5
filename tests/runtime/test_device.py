import asyncio
import threading
import time
from itertools import pairwise

import pytest
import torch

from personalize.config import EngineSettings
from personalize.engine import reading
from personalize.engine.sequences import Phase
from personalize.errors import AdapterCorrupt, Cancelled, ContextTooLong, ModelError
from personalize.model.rows import AdapterRows
from personalize.runtime.device import Runtime
from personalize.types import Outcome, UpdateReport, Window
from tests.engine.stage import Letters, greedy_by_transformers, make_ref, prompt, request, write_version
from tests.model.tiny import random_adapter, random_ids, tiny_base

REPORTS = (UpdateReport("t", Outcome.APPLIED),)


@pytest.fixture
def runtime():
    runtime = Runtime(tiny_base(), EngineSettings(max_num_seqs=4), rank=4, vocabulary=Letters())
    yield runtime
    runtime.close()
    assert not runtime._thread.is_alive()


async def read(runtime, req):
    return [chunk async for chunk in runtime.generate(req)]


def ids_of(chunks):
    return [token for chunk in chunks for token in chunk.token_ids]


def test_many_streams_at_once_are_each_their_own(runtime, tmp_path):
    refs = [None, write_version(tmp_path, runtime.engine.base, 1)]
    requests = [request(prompt(4 + n, n), refs[n % 2], max_tokens=8) for n in range(7)]

    async def main():
        return await asyncio.gather(*(read(runtime, req) for req in requests))

    for req, chunks in zip(requests, asyncio.run(main()), strict=True):
        expected = greedy_by_transformers("llama", req.prompt_ids, req.adapter, 8)
        expected = expected[: expected.index(2) + 1] if 2 in expected else expected
        assert ids_of(chunks)[: len(expected)] == expected
        assert [chunk.finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
        assert chunks[-1].completion.token_ids == tuple(ids_of(chunks))


def test_one_hand_over_per_loop_and_step(runtime):
    async def main():
        loop, calls = asyncio.get_running_loop(), 0
        real = loop.call_soon_threadsafe

        def counting(*args, **kwargs):
            nonlocal calls
            calls += threading.current_thread() is runtime._thread
            return real(*args, **kwargs)

        loop.call_soon_threadsafe = counting
        streams = await asyncio.gather(*(read(runtime, request(prompt(5, n), max_tokens=20)) for n in range(4)))
        return calls, [len(ids_of(chunks)) for chunks in streams]

    calls, lengths = asyncio.run(main())
    assert lengths == [20] * 4 and calls <= 24


def test_errors_reach_the_caller_and_nobody_else(runtime, tmp_path):
    bad = make_ref(1, path=tmp_path / "missing")

    async def main():
        return await asyncio.gather(
            read(runtime, request(prompt(5, 1), bad)),
            read(runtime, request(prompt(256, 1))),
            read(runtime, request(prompt(5, 1))),
            return_exceptions=True,
        )

    corrupt, too_long, fine = asyncio.run(main())
    assert isinstance(corrupt, AdapterCorrupt) and isinstance(too_long, ContextTooLong)
    assert len(ids_of(fine)) == 12


def test_closing_the_iterator_frees_row_and_slot(runtime, tmp_path):
    ref = write_version(tmp_path, runtime.engine.base, 1)

    async def main():
        stream = runtime.generate(request(prompt(5, 1), ref, max_tokens=200))
        first = await anext(stream)
        await stream.aclose()
        return first

    assert asyncio.run(main()).token_ids
    used = runtime.call(lambda: (runtime.engine.bank.num_used(), runtime.engine.scheduler.running()))
    assert used.result(10) == (0, [])
    assert not runtime._streams and not runtime._sequences


def test_a_loop_that_died_costs_its_own_requests_only(runtime):
    async def leave():
        stream = runtime.generate(request(prompt(5, 1), max_tokens=240))
        await anext(stream)
        holes.append(stream)  # keeps the generator from being closed with the loop

    holes: list = []
    loop = asyncio.new_event_loop()
    loop.run_until_complete(leave())
    loop.close()
    assert len(ids_of(asyncio.run(read(runtime, request(prompt(5, 2)))))) == 12
    deadline = time.monotonic() + 20
    while runtime.call(lambda: len(runtime.engine.scheduler.running())).result(10):
        assert time.monotonic() < deadline
    holes[0].aclose().close()


def test_updates_run_between_steps_one_after_another(runtime):
    log: list = []

    def windows(name):
        for n in range(5):
            log.append((name, n, [s.num_new for s in runtime.engine.scheduler.running(Phase.DECODE)]))
            yield Window()
        yield Window(REPORTS)

    async def main():
        stream = runtime.generate(request(prompt(5, 1), max_tokens=100))
        await anext(stream)
        runs = [runtime.run_update(lambda name=name: windows(name)) for name in "ab"]
        reports = [await asyncio.wrap_future(run.reports) for run in runs]
        await stream.aclose()
        return reports

    assert asyncio.run(main()) == [REPORTS, REPORTS]
    assert [(name, n) for name, n, _ in log] == [(name, n) for name in "ab" for n in range(5)]
    progress = [counts[0] for _, _, counts in log]
    # One step per window; the window with a's reports also had one.
    assert [later - earlier for earlier, later in pairwise(progress)] == [1, 1, 1, 1, 2, 1, 1, 1, 1]


def test_an_update_that_fails_is_reported_and_the_thread_lives(runtime):
    def windows():
        yield Window()
        raise ValueError("diverged")

    failed = runtime.run_update(windows)
    with pytest.raises(ValueError, match="diverged"):
        failed.reports.result(20)
    assert failed.closed.done()
    with pytest.raises(ModelError, match="without reports"):
        runtime.run_update(lambda: iter([Window()])).reports.result(20)
    with pytest.raises(ZeroDivisionError):
        runtime.run_update(lambda: 1 / 0).reports.result(20)
    assert runtime.run_update(lambda: iter([Window(REPORTS)])).reports.result(20) == REPORTS
    assert runtime.call(lambda: 3).result(20) == 3
    with pytest.raises(ZeroDivisionError):
        runtime.call(lambda: 1 / 0).result(20)


def test_a_cancelled_update_lets_go_before_it_says_so(runtime):
    started, state = threading.Event(), []

    def windows():
        try:
            while True:
                started.set()
                yield Window()
        finally:
            state.append("let go")

    run = runtime.run_update(windows)
    assert started.wait(20) and run.reports.cancel()
    run.closed.result(20)
    assert state == ["let go"]


def test_training_beside_a_stream_changes_no_bit_of_it(runtime):
    """Gradients are computed between the steps of a running stream, on the same base."""
    base = runtime.engine.base

    def windows():
        adapter = random_adapter(base, 1).copy(requires_grad=True)
        for _ in range(6):
            rows = AdapterRows.of([adapter])
            base.head(base.hidden(random_ids((1, 8)), rows=rows)).square().mean().backward()
            yield Window()
        assert all(torch.isfinite(tensor.grad).all() for tensor in adapter.parameters())
        yield Window(REPORTS)

    async def main():
        task = asyncio.create_task(read(runtime, request(prompt(5, 1), max_tokens=30)))
        run = runtime.run_update(windows)
        await asyncio.wrap_future(run.reports)
        return await task

    assert ids_of(asyncio.run(main())) == ids_of(asyncio.run(read(runtime, request(prompt(5, 1), max_tokens=30))))
    assert not any(parameter.requires_grad for parameter in base.module.parameters())


def test_a_fault_in_the_bookkeeping_is_answered_and_the_thread_lives(runtime, monkeypatch):
    monkeypatch.setattr(runtime.engine.scheduler, "prompts", lambda: 1 / 0)
    with pytest.raises(ModelError, match="engine failed"):
        asyncio.run(read(runtime, request(prompt(5, 1))))
    monkeypatch.undo()
    assert len(ids_of(asyncio.run(read(runtime, request(prompt(5, 1)))))) == 12


def test_a_fault_in_the_bookkeeping_is_answered_to_those_whose_last_words_it_swallowed(runtime, monkeypatch, tmp_path):
    """Their sequences have ended: nothing that the engine still has belongs to them."""
    scheduler, ended = runtime.engine.scheduler, []
    admit = scheduler.admit
    monkeypatch.setattr(scheduler, "admit", lambda: ended.extend(failed := admit()) or failed)
    monkeypatch.setattr(scheduler, "prompts", lambda: 1 / 0 if ended else [])
    with pytest.raises(ModelError, match="engine failed"):
        asyncio.run(asyncio.wait_for(read(runtime, request(prompt(5, 1), make_ref(1, path=tmp_path / "missing"))), 20))


def test_a_fault_in_the_queue_is_answered_and_the_thread_lives(runtime, monkeypatch):
    monkeypatch.setattr(runtime.engine.prefixes, "keep_only", lambda *args: 1 / 0)
    with pytest.raises(ModelError, match="engine failed: ZeroDivisionError"):
        asyncio.run(asyncio.wait_for(read(runtime, request(prompt(5, 1))), 20))
    monkeypatch.undo()
    assert len(ids_of(asyncio.run(read(runtime, request(prompt(5, 1)))))) == 12


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_engine_that_cannot_even_end_its_sequences_answers_everybody_and_closes(runtime, monkeypatch):
    monkeypatch.setattr(runtime.engine.scheduler, "prompts", lambda: 1 / 0)
    monkeypatch.setattr(runtime.engine.scheduler, "leave", lambda sequence: 1 / 0)
    with pytest.raises(ModelError, match="engine failed"):
        asyncio.run(asyncio.wait_for(read(runtime, request(prompt(5, 1))), 20))
    runtime._thread.join(20)
    with pytest.raises(Cancelled):
        runtime.call(lambda: 1)


def test_what_was_read_for_a_caller_who_left_is_let_go_by_a_thread_without_work(runtime, monkeypatch, tmp_path):
    ref, began, go = write_version(tmp_path, runtime.engine.base, 1), threading.Event(), threading.Event()
    real = reading.read_version
    monkeypatch.setattr(
        reading, "read_version", lambda *args, **words: (began.set(), go.wait(20), real(*args, **words))[2]
    )

    async def leave():
        task = asyncio.create_task(read(runtime, request(prompt(5, 1), ref)))
        await asyncio.to_thread(began.wait, 20)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(leave())
    assert not runtime.call(lambda: runtime.engine.has_work).result(20)
    assert runtime.engine._reader.names() == (ref.name,)
    go.set()
    deadline = time.monotonic() + 20
    while runtime.engine._reader.names():  # looked at from here: a call would give the thread a turn of its own
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_closing_answers_everybody():
    runtime = Runtime(tiny_base(), EngineSettings(max_num_seqs=1), rank=4, vocabulary=Letters())
    endless = runtime.run_update(lambda: iter(Window, None))

    async def main():
        running = asyncio.create_task(read(runtime, request(prompt(5, 1), max_tokens=240)))
        waiting = asyncio.create_task(read(runtime, request(prompt(5, 2), max_tokens=240)))
        await asyncio.sleep(0.1)
        await asyncio.to_thread(runtime.close)
        return await asyncio.gather(running, waiting, return_exceptions=True)

    assert all(isinstance(result, Cancelled) for result in asyncio.run(main()))
    with pytest.raises(Cancelled):
        endless.reports.result(10)
    with pytest.raises(Cancelled):
        runtime.call(lambda: 1)
    runtime.close()


def test_a_prepared_version_needs_no_folder(runtime):
    ref = make_ref(1)
    assert runtime.prepare(ref, random_adapter(runtime.engine.base, 1)).result(10)
    assert len(ids_of(asyncio.run(read(runtime, request(prompt(5, 1), ref))))) == 12
    runtime.unload(ref.name).result(10)
    with pytest.raises(AdapterCorrupt):
        asyncio.run(read(runtime, request(prompt(5, 1), ref)))
