"""The thread that owns the device: it alternates engine steps and update windows on one copy of the base.

Everybody else talks to it through an inbox. A step is never held up by anything but one window, a window by nothing
but one step; with nothing to serve, windows run back to back. Idle windows run one at a time while there is neither a
sequence nor an update, and stop between two of them for as long as there is one. With nothing to do, the thread sleeps.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future
from functools import partial
from queue import Empty, SimpleQueue
from typing import TypeVar

import torch

from personalize.config import EngineSettings, LoraSettings
from personalize.engine.engine import Engine
from personalize.engine.sequences import Output, Sequence
from personalize.errors import Cancelled, ModelError, PersonalizeError
from personalize.model.base import BaseModel
from personalize.model.lora import LoraTensors
from personalize.rendering.detokenizer import Vocabulary
from personalize.runtime.streams import TokenStream, hand_over
from personalize.runtime.update_run import MakeWindows, UpdateRun
from personalize.types import AdapterRef, GenerateRequest, TokenChunk

log = logging.getLogger(__name__)

T = TypeVar("T")
Command = Callable[[], None]


class Runtime:
    """Serves and learns on one base model, on one thread.

    Attributes:
        engine: used on the device thread only; from elsewhere through ``call``.
    """

    def __init__(
        self,
        base: BaseModel,
        settings: EngineSettings | None = None,
        *,
        rank: int = LoraSettings().r,
        vocabulary: Vocabulary | None = None,
    ):
        self._settings = settings or EngineSettings()
        self._inbox: SimpleQueue[Command] = SimpleQueue()
        self._gate = threading.Lock()
        self._closing = False
        self._streams: dict[Sequence, TokenStream] = {}
        self._sequences: dict[TokenStream, Sequence] = {}
        self._updates: deque[UpdateRun] = deque()
        self._idle: deque[UpdateRun] = deque()
        self.engine = Engine(base, self._settings, rank=rank, vocabulary=vocabulary, on_ready=self._wake)
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)
        self._thread.start()

    # -- from any thread or event loop ------------------------------------------------------------------------

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[TokenChunk, None]:
        """Yield the reply's chunks; closing the iterator cancels the sequence. See ``InferenceBackend.generate``."""
        stream = TokenStream(asyncio.get_running_loop())
        self._post(partial(self._open, request, stream))
        try:
            while not stream.ended:
                yield await stream.next()
        finally:
            if not stream.ended:
                self._tell(partial(self._cancel, stream))

    def call(self, function: Callable[[], T]) -> "Future[T]":
        """Run ``function`` on the device thread between two steps."""
        future: Future[T] = Future()
        self._post(partial(_fulfil, future, function))
        return future

    def run_update(self, make_windows: MakeWindows) -> UpdateRun:
        """Run a learner's windows between steps, after the updates before it.

        ``make_windows`` and every ``next`` run on the device thread; no adapter rows may stay in use between windows.
        """
        run = UpdateRun(make_windows)
        self._post(partial(self._updates.append, run))
        return run

    def run_idle(self, make_windows: MakeWindows) -> UpdateRun:
        """Run windows that nobody waits for: each only while no sequence is served or waits and no update runs.

        Cancelling it ends it at once, however busy the thread is.
        """
        run = UpdateRun(make_windows)
        run.reports.add_done_callback(lambda _: self._wake())
        self._post(partial(self._idle.append, run))
        return run

    def prepare(self, ref: AdapterRef, tensors: LoraTensors) -> "Future[bool]":
        """Copy a version into a spare slot, if there is one; the future tells whether."""
        return self.call(partial(self.engine.prepare, ref, tensors))

    def warm(self, ref: AdapterRef) -> None:
        """Hint: load a version from its folder."""
        self._post(partial(self.engine.warm, ref))

    def unload(self, name: str) -> "Future[None]":
        """Let go of a version; done when nothing new can start on it."""
        return self.call(partial(self.engine.unload, name))

    def close(self) -> None:
        """End the thread after its current step; what waits fails with ``Cancelled``. Safe to call twice."""
        with self._gate:
            self._closing = True
            self._inbox.put(_nothing)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _post(self, command: Command) -> None:
        with self._gate:
            if self._closing:
                raise Cancelled("the service is closing")
            self._inbox.put(command)

    def _tell(self, command: Command) -> None:
        """Post a command that does not matter any more once the thread ends."""
        with self._gate:
            if not self._closing:
                self._inbox.put(command)

    def _wake(self) -> None:
        self._tell(_nothing)

    # -- on the device thread ---------------------------------------------------------------------------------

    def _run(self) -> None:
        # Gradients of a confident model are full of denormal numbers, each of which costs a CPU a hundred cycles.
        torch.set_flush_denormal(True)
        if self._settings.num_threads is not None:
            torch.set_num_threads(self._settings.num_threads)
        try:
            while not self._closing:
                self._turn()
        except BaseException:
            log.exception("the device thread ends")
            raise
        finally:
            self._shut_down()

    def _turn(self) -> None:
        serves = self.engine.has_work and not self.engine.is_blocked
        self._take_commands(wait=not serves and not self._updates and not self._is_at_leisure())
        if not self._closing:
            self._step()
        if not self._closing and self._updates and self._updates[0].advance():
            self._updates.popleft()
        if not self._closing:
            self._idle_away()

    def _is_at_leisure(self) -> bool:
        """Whether there is idle work and no other."""
        return bool(self._idle) and not self._updates and not self.engine.has_work

    def _idle_away(self) -> None:
        """Let go of idle work that was cancelled; run one window of it if nothing else has come up meanwhile."""
        for run in [run for run in self._idle if run.reports.cancelled()]:
            run.advance()
            self._idle.remove(run)
        if self._is_at_leisure() and self._inbox.empty() and self._idle[0].advance():
            self._idle.popleft()

    def _take_commands(self, *, wait: bool) -> None:
        try:
            command = self._inbox.get() if wait else self._inbox.get_nowait()
            while True:
                self._obey(command)
                command = self._inbox.get_nowait()
        except Empty:
            return

    def _obey(self, command: Command) -> None:
        try:
            command()
        except Exception:  # commands answer to whoever sent them; what gets here is a fault of ours
            log.exception("a command of the device thread failed")

    def _step(self) -> None:
        if not self.engine.has_work:
            return
        try:
            outputs = self.engine.step()
        except Exception as error:
            # The engine ends what a failed forward was for by itself; here its own bookkeeping failed.
            log.exception("an engine step failed")
            outputs = self.engine.fail_all(ModelError(f"the engine failed: {type(error).__name__}"))
        self._deliver(outputs)

    def _deliver(self, outputs: list[Output]) -> None:
        items = []
        for output in outputs:
            stream = self._streams.get(output.sequence)
            if stream is None:
                continue
            item = output.chunk if output.chunk is not None else output.error
            assert item is not None
            if isinstance(item, PersonalizeError) or item.finish_reason is not None:
                self._forget(output.sequence)
            items.append((stream, item))
        for stream in hand_over(items):
            self._cancel(stream)

    def _open(self, request: GenerateRequest, stream: TokenStream) -> None:
        try:
            sequence = self.engine.add(request)
        except PersonalizeError as error:
            hand_over([(stream, error)])
            return
        self._streams[sequence] = stream
        self._sequences[stream] = sequence

    def _cancel(self, stream: TokenStream) -> None:
        sequence = self._sequences.get(stream)
        if sequence is not None:
            self._forget(sequence)
            self.engine.cancel(sequence)

    def _forget(self, sequence: Sequence) -> None:
        del self._sequences[self._streams.pop(sequence)]

    def _shut_down(self) -> None:
        """Answer everybody who still waits, whatever state the engine is in."""
        with self._gate:
            self._closing = True
        while not self._inbox.empty():
            self._obey(self._inbox.get())
        hand_over([(stream, Cancelled("the service is closing")) for stream in self._sequences])
        for run in (*self._updates, *self._idle):
            run.abandon()
        self.engine.close()


def _fulfil(future: "Future[T]", function: Callable[[], T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(function())
    except BaseException as error:
        future.set_exception(error)


def _nothing() -> None:
    return None
