"""Which waiting request gets a row and a slot, and what the next forward runs.

Fair between users (see ``WaitingLine``), with one exception: a request whose adapter finds every slot pinned waits
while others go on, because it needs something that they do not. So that it cannot starve, after ``DRAIN_AFTER`` rounds
the slot with the fewest users takes nobody who came later, and is free when its last sequence ends.
"""

import logging
from collections import Counter
from collections.abc import Iterator
from itertools import islice

from personalize.engine.reading import AdapterReader
from personalize.engine.sequences import Output, Phase, Sequence
from personalize.engine.waiting import WaitingLine
from personalize.errors import AdapterError, PersonalizeError
from personalize.model.bank import BASE_SLOT, AdapterBank
from personalize.types import AdapterRef

log = logging.getLogger(__name__)

DRAIN_AFTER = 64
MAX_PADDING = 1.25
"""Most tokens of a prefill, padding included, for every token that somebody asked for."""


class Scheduler:
    """Owns the waiting queue and the rows.

    Attributes:
        waiting: requests without a row.
        rows: sequence in each row, None where it is free.
        warm: versions that somebody asked to have loaded, without a request.
    """

    def __init__(self, bank: AdapterBank, reader: AdapterReader, *, max_num_seqs: int, max_batched_tokens: int):
        self.bank, self.reader = bank, reader
        self.max_batched_tokens = max_batched_tokens
        self.waiting = WaitingLine()
        self.rows: list[Sequence | None] = [None] * max_num_seqs
        self.warm: dict[str, AdapterRef] = {}
        self._draining: str | None = None
        self._read_at = -1

    def running(self, phase: Phase | None = None) -> list[Sequence]:
        """Return the sequences that hold a row, by row; with ``phase`` only those."""
        return [s for s in self.rows if s is not None and (phase is None or s.phase is phase)]

    def is_blocked(self) -> bool:
        """Whether nothing can move before a folder has been read."""
        if any(self.rows) or any(self._is_ready(name) for name in self.waiting.names()):
            return False
        needed = [s.adapter_name for s in self._next_waiting()]  # a step would begin to read these
        return all(name is not None and self.reader.is_reading(name) for name in [*needed, *self.warm])

    def admit(self) -> list[Output]:
        """Give rows and slots to waiting requests; return those whose adapter cannot be served."""
        failed: list[Output] = []
        if self._draining is not None and not any(s.waited_steps > DRAIN_AFTER for s in self.waiting):
            self._draining = None
        self._read_ahead()
        if self.waiting and None in self.rows:
            for sequence in self._in_turn():
                try:
                    slot = self._slot(sequence)
                except PersonalizeError as error:
                    failed.append(Output(sequence, error=error))
                except Exception as error:  # a full disk, no memory for the copy: this request's own trouble
                    failed.append(Output(sequence, error=AdapterError(f"{sequence.adapter_name}: {error}")))
                else:
                    if slot is not None:
                        self._place(sequence, slot)
                if None not in self.rows:
                    break
        self._place_warm()
        self.forget_unwanted()
        return failed

    def prompts(self) -> list[Sequence]:
        """Return the sequences whose prompts make up the next prefill: several whole ones, or one that needs chunks.

        The oldest is always among them; those that are much shorter or longer wait for a forward of their own, which
        costs less than the padding would.
        """
        pending = sorted(self.running(Phase.PREFILL), key=lambda s: s.arrival)
        if not pending or self._needs_chunks(pending[0]):
            return pending[:1]
        chosen: list[Sequence] = []
        longest, num_tokens = 0, 0
        for sequence in pending:
            if self._needs_chunks(sequence):
                continue
            length = len(sequence.prompt_ids)
            padded = max(longest, length) * (len(chosen) + 1)
            if padded > self.max_batched_tokens or padded > MAX_PADDING * (num_tokens + length):
                continue
            chosen.append(sequence)
            longest, num_tokens = max(longest, length), num_tokens + length
        return chosen

    def leave(self, sequence: Sequence) -> None:
        """Take a sequence out and give back what it holds; exactly once."""
        assert sequence.phase is not Phase.ENDED, "a sequence ends once"
        if sequence.phase is Phase.WAITING:
            self.waiting.remove(sequence)
        else:
            self.rows[sequence.row] = None
            self.bank.release(sequence.slot)
        sequence.phase = Phase.ENDED

    def forget_unwanted(self) -> None:
        """Let go of tensors that are in a slot by now or that nobody waits for any more."""
        if names := self.reader.names():
            for name in names:
                wanted = name in self.warm or self.waiting.has_name(name)
                if name in self.bank or not (wanted or self.reader.is_reading(name)):
                    self.reader.forget(name)

    def _needs_chunks(self, sequence: Sequence) -> bool:
        return sequence.num_cached > 0 or len(sequence.prompt_ids) > self.max_batched_tokens

    def _place(self, sequence: Sequence, slot: int) -> None:
        self.waiting.serve(sequence)
        row = self.rows.index(None)
        self.rows[row] = sequence
        sequence.row, sequence.slot, sequence.phase = row, slot, Phase.PREFILL
        sequence.waited_steps = 0

    def _slot(self, sequence: Sequence) -> int | None:
        """Return a slot that is counted for the sequence, or None where it has to wait."""
        ref = sequence.request.adapter
        if ref is None:
            return BASE_SLOT
        if ref.name == self._draining:
            return None
        slot = self.bank.acquire(ref.name)
        if slot is not None:
            return slot
        tensors = self.reader.result(ref.name)
        if tensors is None:
            return None
        if self.bank.load(ref, tensors) is None:
            self._wait_for_slot(sequence)
            return None
        return self.bank.acquire(ref.name)

    def _wait_for_slot(self, sequence: Sequence) -> None:
        sequence.waited_steps += 1
        if sequence.waited_steps > DRAIN_AFTER and self._draining is None:
            names = [s.adapter_name for s in self.running() if s.adapter_name is not None]
            self._draining = min(names, key=names.count)

    def _is_ready(self, name: str | None) -> bool:
        """Whether a request for this version would move as soon as it has a row."""
        return name is None or name in self.bank or self.reader.has_ended(name)

    def _in_turn(self) -> Iterator[Sequence]:
        return self.waiting.in_turn(Counter(s.user for s in self.rows if s is not None))

    def _next_waiting(self) -> list[Sequence]:
        return list(islice(self._in_turn(), len(self.rows)))

    def _read_ahead(self) -> None:
        """Read the adapters of as many waiting requests as there are rows: more would only fill memory."""
        if not self.waiting or (None not in self.rows and self.waiting.changes == self._read_at):
            return  # nobody came or went: what is needed next is being read already
        self._read_at = self.waiting.changes
        for sequence in self._next_waiting():
            ref = sequence.request.adapter
            if ref is not None and ref.name not in self.bank:
                self.reader.start(ref)

    def _place_warm(self) -> None:
        for name, ref in list(self.warm.items()):
            if self.reader.is_reading(name):
                continue
            del self.warm[name]
            try:
                tensors = self.reader.result(name)
                if tensors is not None:
                    self.bank.load(ref, tensors)
            except Exception as error:  # only a hint: whoever asks for the version gets the error
                log.warning("adapter %s could not be made warm: %s", name, error)
