"""What other threads want from the device thread, in the order in which they said so."""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import Empty, SimpleQueue
from typing import TypeVar

from personalize.errors import Cancelled

log = logging.getLogger(__name__)

T = TypeVar("T")
Command = Callable[[], None]


class Inbox:
    """Commands for one thread, from any thread, until it is closed.

    Attributes:
        closing: nothing more is accepted, and the thread is to end.
    """

    def __init__(self):
        self.closing = False
        self._gate = threading.Lock()
        self._commands: SimpleQueue[Command] = SimpleQueue()

    # -- from any thread --------------------------------------------------------------------------------------

    def post(self, command: Command) -> None:
        """Add a command; raises ``Cancelled`` once the inbox is closed."""
        with self._gate:
            if self.closing:
                raise Cancelled("the service is closing")
            self._commands.put(command)

    def tell(self, command: Command) -> None:
        """Add a command that does not matter any more once the inbox is closed."""
        with self._gate:
            if not self.closing:
                self._commands.put(command)

    def ask(self, function: Callable[[], T], via: Callable[[Command], None] | None = None) -> "Future[T]":
        """Add a command that answers with what ``function`` returns or raises; ``via`` decides when it runs."""
        future: Future[T] = Future()
        answer = partial(_fulfil, future, function)
        self.post(answer if via is None else partial(via, answer))
        return future

    def wake(self) -> None:
        """Let the thread look around."""
        self.tell(_nothing)

    def close(self) -> None:
        """Accept nothing more and wake the thread; safe to call twice."""
        with self._gate:
            self.closing = True
            self._commands.put(_nothing)

    # -- on the thread that owns it ---------------------------------------------------------------------------

    def empty(self) -> bool:
        return self._commands.empty()

    def take(self, *, wait: bool) -> None:
        """Run what has come; with ``wait`` sleep until there is something."""
        try:
            command = self._commands.get() if wait else self._commands.get_nowait()
            while True:
                obey(command)
                command = self._commands.get_nowait()
        except Empty:
            return


def obey(command: Command) -> None:
    """Run a command; a fault in it is ours, since commands answer to whoever sent them."""
    try:
        command()
    except Exception:
        log.exception("a command of the device thread failed")


def _fulfil(future: "Future[T]", function: Callable[[], T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(function())
    except BaseException as error:
        future.set_exception(error)


def _nothing() -> None:
    return None
