import threading
import time

import pytest

from personalize.learner.background import in_background
from personalize.types import Window


def finish(work):
    """Run the windows; return how many there were and the result."""
    windows = 0
    try:
        while True:
            assert next(work) == Window()
            windows += 1
    except StopIteration as end:
        return windows, end.value


def test_windows_go_by_until_the_result_is_there():
    go, threads = threading.Event(), []

    def read():
        threads.append(threading.current_thread())
        go.wait(20)
        return 7

    work = in_background(read)
    assert next(work) == next(work) == Window()
    go.set()
    assert finish(work)[1] == 7
    assert threads != [threading.current_thread()] and not threads[0].is_alive()


def test_an_error_is_raised_where_the_result_would_be():
    with pytest.raises(ZeroDivisionError):
        finish(in_background(lambda: 1 // 0))


def test_closing_waits_until_nothing_is_written_any_more():
    began, written = threading.Event(), []

    def write():
        began.set()
        time.sleep(0.05)
        written.append(1)

    work = in_background(write)
    next(work)
    assert began.wait(20)
    work.close()
    assert written == [1]
