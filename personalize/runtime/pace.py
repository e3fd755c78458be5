"""How decode steps and the passes of an update share the device's time."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Pace:
    """Says when a step is due beside an update: as soon as the update has had as long as a step takes.

    So streams keep half of their speed, and wait between two tokens for two steps and whatever cannot be interrupted.
    """

    def __init__(self):
        self._last_s = self._before_s = 0.0
        self._ended_s = 0.0

    @contextmanager
    def step(self) -> Iterator[None]:
        """Time a step."""
        began_s = time.perf_counter()
        try:
            yield
        finally:
            self._ended_s = time.perf_counter()
            self._before_s, self._last_s = self._last_s, self._ended_s - began_s

    def is_due(self) -> bool:
        """Whether the update has had its share since the last step."""
        # Steps alternate with prompts, and somebody's long prompt must not lengthen everybody's next wait as well.
        return time.perf_counter() - self._ended_s >= min(self._last_s, self._before_s)
