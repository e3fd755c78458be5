"""The loop thread behind both blocking twins, and its iterators."""

import asyncio
import contextlib
import gc
import threading

import pytest

from personalize.errors import Cancelled
from personalize.loops import LoopThread


@pytest.fixture
def thread():
    thread = LoopThread("loop", "it is closed")
    yield thread
    thread.close()


class Numbers:
    """Two numbers, and whether whoever reads them has left; ``step`` holds back the second."""

    def __init__(self):
        self.left = threading.Event()
        self.waits = threading.Event()
        self.step = asyncio.Event()

    async def count(self):
        try:
            yield 0
            self.waits.set()
            await self.step.wait()
            yield 1
        finally:
            await asyncio.sleep(0)
            self.left.set()

    async def nested(self):
        async with contextlib.aclosing(self.count()) as numbers:
            async for number in numbers:
                yield number


@pytest.fixture
def numbers():
    return Numbers()


def in_background(work) -> tuple[threading.Thread, list]:
    """Run ``work`` on a thread; what it returned or raised is in the list."""
    came = []

    def run() -> None:
        try:
            came.append(work())
        except BaseException as error:
            came.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, came


async def forever() -> None:
    await asyncio.Event().wait()


def test_the_end_comes_when_the_generator_has_let_go(thread, numbers):
    numbers.step.set()
    items = thread.iterate(numbers.count())
    assert list(items) == [0, 1] and numbers.left.is_set()
    assert list(items) == []


def test_close_returns_when_the_generator_has_let_go(thread, numbers):
    items = thread.iterate(numbers.count())
    next(items)
    items.close()
    assert numbers.left.is_set()
    assert list(items) == []


def test_an_error_of_the_generator_reaches_the_reader_and_ends_it(thread):
    async def broken():
        yield 0
        raise KeyError("why")

    items = thread.iterate(broken())
    assert next(items) == 0
    with pytest.raises(KeyError):
        next(items)
    assert list(items) == []


def test_garbage_collected_on_the_loops_own_thread_it_waits_for_nobody(thread, numbers):
    items = thread.iterate(numbers.count())
    next(items)
    cycle: list = [items]
    cycle.append(cycle)
    gc.disable()
    try:
        del items, cycle
        thread._loop.call_soon_threadsafe(gc.collect)
        assert numbers.left.wait(5)
    finally:
        gc.enable()


def test_what_runs_after_a_dropped_iterator_finds_it_closed(thread, numbers):
    async def left() -> bool:
        return numbers.left.is_set()

    next(thread.iterate(numbers.count()))
    assert thread.run(left)


def test_closing_waits_for_the_step_that_another_thread_reads(thread, numbers):
    items = thread.iterate(numbers.count())
    next(items)
    reader, read = in_background(lambda: next(items))
    assert numbers.waits.wait(5)
    closer, closed = in_background(items.close)
    thread._loop.call_soon_threadsafe(numbers.step.set)
    for one in (reader, closer):
        one.join(5)
    assert (read, closed) == ([1], [None]) and numbers.left.is_set()


def test_close_lets_every_waiting_thread_go(thread, numbers):
    items = thread.iterate(numbers.count())
    next(items)
    reader, read = in_background(lambda: next(items))
    waiter, waited = in_background(lambda: thread.run(forever))
    assert numbers.waits.wait(5)
    thread.close()
    for one in (reader, waiter):
        one.join(5)
    assert [str(error) for error in (*read, *waited)] == ["it is closed"] * 2
    assert isinstance(read[0], Cancelled) and numbers.left.is_set()


def test_what_begins_just_before_the_loop_stops_is_cancelled(thread):
    gate = threading.Event()
    thread._loop.call_soon_threadsafe(gate.wait)
    begun = thread._begun(forever)
    threading.Timer(0.05, gate.set).start()
    thread.close()
    assert begun.cancelled()


def test_the_last_work_may_still_use_the_loop(thread):
    ended = []

    async def last() -> None:
        await asyncio.to_thread(ended.append, "last")

    thread.close(last)
    thread.close(last)
    assert ended == ["last"] and not thread._thread.is_alive()


def test_close_closes_what_is_half_read_from_the_outside_in(thread, numbers, caplog):
    items = thread.iterate(numbers.nested())
    next(items)
    thread.close()
    assert numbers.left.is_set() and not caplog.records


def test_after_close_reading_on_says_so_and_leaving_is_quiet(thread, numbers):
    items, fresh = thread.iterate(numbers.count()), thread.iterate(Numbers().count())
    next(items)
    thread.close()
    for one in (items, fresh):
        with pytest.raises(Cancelled, match="it is closed"):
            next(one)
        one.close()


def test_after_close_work_is_refused_before_it_begins(thread):
    begun = []
    thread.close()
    with pytest.raises(Cancelled):
        thread.run(begun.append, 1)
    assert not begun
