"""The thread that owns the device: it alternates engine steps and update windows on one copy of the base.

Everybody else talks to it through an inbox. Between two windows there is one step; with nothing to serve, windows run
back to back. On a CPU a window does not hold up the steps either: between two layers of its passes, requests are taken
in and steps run as they fall due (see ``Pace``). Elsewhere a step may have to wait for one window. Idle windows run one
at a time while there is neither a sequence nor an update, and stop between two of them for as long as there is one.
Before them come the conversations that are to be prefilled again; of these passes whatever comes up stops the one that
runs, on a CPU between two of its layers. With nothing to do, the thread sleeps.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable
from collections.abc import Sequence as Items
from concurrent.futures import Future
from contextlib import nullcontext
from functools import partial
from typing import TypeVar

import torch

from personalize.config import EngineSettings, LoraSettings
from personalize.engine.engine import Engine
from personalize.engine.prefixes import GiveWay
from personalize.engine.sequences import Output, Sequence
from personalize.errors import Cancelled, ModelError, PersonalizeError
from personalize.model.base import BaseModel
from personalize.model.lora import LoraTensors
from personalize.rendering.detokenizer import Vocabulary
from personalize.runtime.inbox import Command, Inbox, obey
from personalize.runtime.pace import Pace
from personalize.runtime.streams import TokenStream, hand_over
from personalize.runtime.update_run import MakeWindows, UpdateRun
from personalize.types import AdapterRef, GenerateRequest, TokenChunk

log = logging.getLogger(__name__)

T = TypeVar("T")


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
        self._inbox = Inbox()
        self._streams: dict[Sequence, TokenStream] = {}
        self._sequences: dict[TokenStream, Sequence] = {}
        self._updates: deque[UpdateRun] = deque()
        self._idle: deque[UpdateRun] = deque()
        self._pace = Pace()
        self._in_window = False
        self._postponed: deque[Command] = deque()
        self.engine = Engine(base, self._settings, rank=rank, vocabulary=vocabulary, on_ready=self._inbox.wake)
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)
        self._thread.start()

    # -- from any thread or event loop ------------------------------------------------------------------------

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[TokenChunk, None]:
        """Yield the reply's chunks; closing the iterator cancels the sequence. See ``InferenceBackend.generate``."""
        stream = TokenStream(asyncio.get_running_loop())
        self._inbox.post(partial(self._open, request, stream))
        try:
            while not stream.ended:
                yield await stream.next()
        finally:
            if not stream.ended:
                self._inbox.tell(partial(self._cancel, stream))

    def call(self, function: Callable[[], T]) -> "Future[T]":
        """Run ``function`` on the device thread between two steps, and never within a window."""
        return self._inbox.ask(function, self._between_windows)

    def run_update(self, make_windows: MakeWindows) -> UpdateRun:
        """Run a learner's windows between steps, after the updates before it.

        ``make_windows`` and every ``next`` run on the device thread; no adapter rows may stay in use between windows.
        """
        run = UpdateRun(make_windows)
        self._inbox.post(partial(self._updates.append, run))
        return run

    def run_idle(self, make_windows: MakeWindows) -> UpdateRun:
        """Run windows that nobody waits for: each only while no sequence is served or waits and no update runs.

        Cancelling it ends it at once, however busy the thread is.
        """
        run = UpdateRun(make_windows)
        run.reports.add_done_callback(lambda _: self._inbox.wake())
        self._inbox.post(partial(self._idle.append, run))
        return run

    def prepare(self, ref: AdapterRef, tensors: LoraTensors) -> "Future[bool]":
        """Copy a version into a spare slot, if there is one; the future tells whether."""
        return self._inbox.ask(partial(self.engine.prepare, ref, tensors))

    def prefill_again(self, ref: AdapterRef, conversations: Items[Items[int]]) -> None:
        """Compute conversations under a prepared version while nothing else is to be done; see ``WarmPrefixes``."""
        self._inbox.post(partial(self.engine.prefill_again, ref, conversations))

    def warm(self, ref: AdapterRef) -> None:
        """Hint: load a version from its folder."""
        self._inbox.post(partial(self.engine.warm, ref))

    def unload(self, name: str) -> "Future[None]":
        """Let go of a version; done when nothing new can start on it."""
        return self._inbox.ask(partial(self.engine.unload, name))

    def close(self) -> None:
        """End the thread after its current step; what waits fails with ``Cancelled``. Safe to call twice."""
        self._inbox.close()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    # -- on the device thread ---------------------------------------------------------------------------------

    def _run(self) -> None:
        # Gradients of a confident model are full of denormal numbers, each of which costs a CPU a hundred cycles.
        torch.set_flush_denormal(True)
        if self._settings.num_threads is not None:
            torch.set_num_threads(self._settings.num_threads)
        try:
            while not self._inbox.closing:
                self._turn()
        except BaseException:
            log.exception("the device thread ends")
            raise
        finally:
            self._shut_down()

    def _turn(self) -> None:
        serves = self.engine.has_work and not self.engine.is_blocked
        self._inbox.take(wait=not serves and not self._updates and not self._is_at_leisure())
        if not self._inbox.closing:
            self._step()
        if not self._inbox.closing and self._updates and self._advance(self._updates[0]):
            self._updates.popleft()
        if not self._inbox.closing:
            self._idle_away()

    def _is_at_leisure(self) -> bool:
        """Whether there is idle work and no other."""
        idle = bool(self._idle) or self.engine.prefixes.has_work
        return idle and not self._updates and not self.engine.has_work

    def _idle_away(self) -> None:
        """Let go of idle work that was cancelled; run one window of it if nothing else has come up meanwhile."""
        for run in [run for run in self._idle if run.reports.cancelled()]:
            run.advance()
            self._idle.remove(run)
        if not self._is_at_leisure() or not self._inbox.empty():
            return
        if self.engine.prefixes.has_work:
            self._prefill_again()
        elif self._advance(self._idle[0]):
            self._idle.popleft()

    def _prefill_again(self) -> None:
        """Run one chunk; it ends with the first layer behind which something has come."""
        base = self.engine.base
        with base.pausing(self._give_way) if base.device.type == "cpu" else nullcontext():
            self.engine.prefixes.advance()

    def _give_way(self) -> None:
        if not self._inbox.empty():
            raise GiveWay

    def _advance(self, run: UpdateRun) -> bool:
        """Run one window and what was put off meanwhile; return whether the update is over."""
        base = self.engine.base
        self._in_window = True
        try:
            with base.pausing(self._breathe) if base.device.type == "cpu" else nullcontext():
                return run.advance()
        finally:
            self._in_window = False
            while self._postponed:
                obey(self._postponed.popleft())

    def _breathe(self) -> None:
        """Between two layers of a learner's pass: take in what has come, run a step if one is due."""
        if self._inbox.closing:
            return
        if not self._inbox.empty():
            self._inbox.take(wait=False)
        if self._pace.is_due() and not self._inbox.closing and not self.engine.is_blocked:
            self._step()

    def _between_windows(self, command: Command) -> None:
        if self._in_window:
            self._postponed.append(command)
        else:
            command()

    def _step(self) -> None:
        if not self.engine.has_work:
            self.engine.forget_unwanted()
            return
        try:
            with self._pace.step():
                outputs = self.engine.step()
        except Exception as error:
            # The engine ends what a failed forward was for by itself; here its own bookkeeping failed.
            log.exception("an engine step failed")
            self._fail_all(_engine_failed(error))
        else:
            self._deliver(outputs)

    def _fail_all(self, error: PersonalizeError) -> None:
        """End every stream with ``error``, and then what the engine still has; if that fails too, the thread ends."""
        # First the streams, all of them: the last words to some may have been lost with the step.
        hand_over([(stream, error) for stream in self._sequences])
        self._streams.clear()
        self._sequences.clear()
        self.engine.fail_all(error)

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
        except Exception as error:
            log.exception("a request could not be queued")
            hand_over([(stream, _engine_failed(error))])
        else:
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
        self._inbox.close()
        self._inbox.take(wait=False)
        hand_over([(stream, Cancelled("the service is closing")) for stream in self._sequences])
        for run in (*self._updates, *self._idle):
            run.abandon()
        self.engine.close()


def _engine_failed(error: Exception) -> ModelError:
    return ModelError(f"the engine failed: {type(error).__name__}")
