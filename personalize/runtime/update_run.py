"""One update on its way through the device thread, window by window."""

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError

from personalize.errors import Cancelled, ModelError
from personalize.types import UpdateReport, Window

log = logging.getLogger(__name__)

MakeWindows = Callable[[], Iterator[Window]]
Reports = tuple[UpdateReport, ...]


class UpdateRun:
    """A learner's windows and what waits for their reports.

    Attributes:
        reports: what the last window carried, or what went wrong. Cancelling it abandons the update at the next cut.
        closed: done when the learner has let go: nothing writes into the update's folders any more.
    """

    def __init__(self, make_windows: MakeWindows):
        self.reports: Future[Reports] = Future()
        self.closed: Future[None] = Future()
        self._make_windows = make_windows
        self._windows: Iterator[Window] | None = None

    def advance(self) -> bool:
        """Run one window; return whether the update is over. Never raises."""
        if self.reports.cancelled():
            return self._close()
        try:
            if self._windows is None:
                self._windows = self._make_windows()
            window = next(self._windows)
        except StopIteration:
            return self.fail(ModelError("the learner ended without reports"))
        except Exception as error:
            log.exception("an update failed")
            return self.fail(error)
        if window.reports is None:
            return False
        self._close()
        self._settle(lambda: self.reports.set_result(tuple(window.reports or ())))
        return True

    def fail(self, error: Exception) -> bool:
        """Abandon the update with ``error``."""
        self._close()
        self._settle(lambda: self.reports.set_exception(error))
        return True

    def abandon(self) -> None:
        """Abandon the update because the device thread ends."""
        self.fail(Cancelled("the service is closing"))

    def _close(self) -> bool:
        windows, self._windows = self._windows, None
        try:
            if windows is not None and (close := getattr(windows, "close", None)) is not None:
                close()
        except Exception:
            log.exception("a learner could not be closed")
        if not self.closed.done():
            self.closed.set_result(None)
        return True

    def _settle(self, settle: Callable[[], None]) -> None:
        try:
            settle()
        except InvalidStateError:  # cancelled in the meantime: nobody waits
            log.info("an update ended after it had been cancelled")
