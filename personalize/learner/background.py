"""Reading and writing files without holding up a decode step."""

from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

from personalize.types import Window

T = TypeVar("T")

LOOK_S = 0.001
"""How long a window waits for the files: little beside a decode step, and no busy waiting where nobody streams."""


def in_background(work: Callable[[], T]) -> Generator[Window, None, T]:
    """Return what ``work`` returns or raises; it runs on a thread of its own, and windows go by meanwhile.

    Closing the generator waits for ``work``: whoever abandons an update may rely on nothing being written any more.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="learner-files") as pool:
        future = pool.submit(work)
        while not wait([future], timeout=LOOK_S).done:
            yield Window()
        return future.result()
