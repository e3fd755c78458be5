"""What is written down about a request: its follow-up, its turns, its outcome."""

import logging
import threading
from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import TypeVar

from adapters_store import Store
from adapters_store.errors import Erased, InvalidValue, NotFound, StoreError
from adapters_store.types import NewTurn
from personalize import errors
from personalize.service.admission import Admitted, unstorable
from personalize.turns import prefix_key, prompt_key, reply_key
from personalize.types import Completion, Message, Outcome, UserId
from personalize.updates.storage import translated

MAX_REMEMBERED = 10_000
"""Requests of which a process knows what the store does not."""
T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of a request, and the update that it waits for."""

    outcome: Outcome
    update_id: str | None = None


class Ledger:
    """Writes requests down; its calls block, and no fault of the store reaches the reply.

    Attributes:
        outcomes: one count per accepted request, by the outcome its reply carried.

    Args:
        max_queued: waiting follow-ups per user.
        max_wait_s: how long a follow-up may wait to be learnt from; None: for ever.
    """

    def __init__(self, store: Store, base_digest: str, max_queued: int, max_wait_s: float | None = None):
        self.outcomes: Counter[Outcome] = Counter()
        self._store = store
        self._base_digest = base_digest
        self._max_queued, self._max_wait_s = max_queued, max_wait_s
        self._lock = threading.Lock()
        self._unrecorded: OrderedDict[str, Outcome] = OrderedDict()
        self._owners: OrderedDict[str, str | None] = OrderedDict()

    def settle(self, admitted: Admitted) -> Verdict:
        """Queue the follow-up where there is one, durably; return the request's one outcome."""
        verdict = self._queued(admitted) if admitted.follow_up is not None else Verdict(admitted.outcome)
        with self._lock:
            self.outcomes[verdict.outcome] += 1
            _keep(self._owners, admitted.request_id, admitted.user.user_id if admitted.user else None)
        return verdict

    def record(self, admitted: Admitted, completion: Completion, shown: str, verdict: Verdict) -> str | None:
        """Record one choice as a turn; return its id, None where nothing is recorded.

        Args:
            shown: the reply as the client has it.
        """
        turn_id = None
        try:
            if admitted.user is not None:
                turn_id = self._store.record_turn(self._turn(admitted, completion, shown, verdict))
        except StoreError as error:
            log.warning("a turn could not be recorded: %s", error.code)
        if turn_id is None:
            with self._lock:
                _keep(self._unrecorded, admitted.request_id, verdict.outcome)
        return turn_id

    def outcome(self, request_id: str) -> Outcome:
        """Return what became of a request.

        Raises:
            NotFound: no such request, or one of the long past that left no record.
        """
        with translated():
            recorded = self._store.outcome(request_id)
        with self._lock:
            found = recorded or self._unrecorded.get(request_id)
        if found is None:
            raise errors.NotFound(f"no request {request_id!r} is known", param="request_id")
        return Outcome(found)

    def owner(self, request_id: str) -> UserId | None:
        """Return whose request it was, as long as this process remembers; None for nobody's."""
        self.outcome(request_id)  # raises for one that never was
        with self._lock:
            owner = self._owners.get(request_id)
        return UserId(owner) if owner else None

    def _queued(self, admitted: Admitted) -> Verdict:
        assert admitted.user is not None and admitted.parent_turn_id is not None and admitted.follow_up is not None
        try:
            update = self._store.queue_follow_up(
                admitted.user.user_id,
                admitted.parent_turn_id,
                admitted.request_id,
                admitted.follow_up,
                max_queued=self._max_queued,
                max_wait_s=self._max_wait_s,
            )
        except (Erased, NotFound):
            return Verdict(Outcome.CANCELLED_ERASURE)
        except InvalidValue:  # the store takes texts of some megabytes
            return Verdict(Outcome.SKIPPED_TOO_LONG)
        except StoreError as error:
            log.warning("a follow-up could not be queued: %s", error.code)
            return Verdict(unstorable(error))
        outcome = Outcome(update.outcome)
        return Verdict(outcome, update.update_id if outcome is Outcome.QUEUED else None)

    def _turn(self, admitted: Admitted, completion: Completion, shown: str, verdict: Verdict) -> NewTurn:
        assert admitted.user is not None
        messages = admitted.request.messages
        key = self._store.user_key(admitted.user.user_id)
        # A reply that nobody saw is recorded for its outcome; no follow-up can be about it.
        found = bool(completion.token_ids)
        return NewTurn(
            user_id=admitted.user.user_id,
            request_id=admitted.request_id,
            parent_turn_id=admitted.parent_turn_id,
            messages=tuple((message.role, message.content) for message in messages),
            prompt_ids=admitted.prompt_ids,
            completion_ids=completion.token_ids,
            completion_mask=completion.mask,
            reply_text=shown,
            finish_reason=completion.finish_reason,
            adapter_number=admitted.version,
            base_digest=self._base_digest,
            prompt_key=prompt_key(key, messages) if found else None,
            prefix_key=prefix_key(key, (*messages, Message("assistant", shown))) if found else None,
            reply_key=reply_key(key, shown) if found else None,
            outcome=verdict.outcome.value,
            update_id=verdict.update_id,
        )


def _keep(recent: OrderedDict[str, T], request_id: str, value: T) -> None:
    recent[request_id] = value
    if len(recent) > MAX_REMEMBERED:
        recent.popitem(last=False)
