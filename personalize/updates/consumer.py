"""The consumer of the durable queue: one task that trains what waits, while this process holds the lease."""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

from adapters_store.errors import LeaseLost
from adapters_store.types import ClaimedUpdate
from personalize.types import Outcome
from personalize.updates.batch import Batch, School
from personalize.updates.lease import Lease
from personalize.updates.reviewer import Reviewer
from personalize.updates.threads import taken

POLL_S = 1.0
UPKEEP_S = 600.0
log = logging.getLogger(__name__)


class Consumer:
    """Runs one batch after another; without the lease, or while learning is paused, it only watches.

    Attributes:
        lease: says who trains.
        reviewer: looks at what was published again, in idle time.
        outcomes: final outcomes of the updates that this process ran, or ended because they had waited for too long.
        last_fault: class of the latest exception, for the operator.

    Args:
        max_batch: users that are trained together.
        review_every: versions of a user between two reviews; 0 never reviews.
        poll_s: how often the queue is looked at unasked; other processes queue too.
    """

    def __init__(
        self,
        school: School,
        *,
        max_batch: int,
        review_every: int = 0,
        lease: Lease | None = None,
        poll_s: float = POLL_S,
    ):
        self.lease = lease or Lease(school.store)
        self.reviewer = Reviewer(school, self.lease, review_every, self._note)
        self.outcomes: Counter[Outcome] = Counter()
        self.last_fault: str | None = None
        self._school = school
        self._store = school.store
        self._max_batch = max_batch
        self._poll_s = poll_s
        self._batch: Batch | None = None
        self._users: frozenset[str] | None = frozenset()
        self._held = Counter[str]()
        self._woken = asyncio.Event()
        self._changed = asyncio.Event()
        self._upkeep_s = float("-inf")

    # --- the loop ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Consume for ever; cancelling it gives the claimed updates back and lets go of the lease."""
        beside = [asyncio.create_task(work) for work in (self.lease.keep(), self.reviewer.run(), self._shed())]
        try:
            await self.lease.renew()
            while True:
                self._woken.clear()
                if not await self._guarded_round():
                    await self._pause()
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            await self.lease.give_up()

    def wake(self) -> None:
        """Look into the queue now."""
        self._woken.set()

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._poll_s):  # wait_for can lose a cancellation that comes with the event
                await self._woken.wait()

    async def _guarded_round(self) -> bool:
        """Return whether to go on at once; after a fault it is time for a pause."""
        try:
            return self.lease.held and await self._round()
        except LeaseLost:
            await self.lease.renew()
        except Exception as error:
            self._note(error)
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise asyncio.CancelledError from error  # the fault came while the end gave back what was claimed
        self._woken.clear()
        return False

    async def _round(self) -> bool:
        if self._batch is not None:  # what the store could not take back after the last round
            await self._batch.give_back()
            self._batch = None
        try:
            busy = await self._claim_and_run()
        finally:
            self._users = frozenset()
            self._notify()
        await self._upkeep()
        return busy

    async def _claim_and_run(self) -> bool:
        self._users = None  # for as long as nobody can say whose updates these will be
        claims = await taken(
            lambda claims: self._batch_of(claims).give_back(),
            self._store.claim_updates,
            self.lease.owner,
            self._max_batch,
            self._school.base_digest,
            tuple(self._held),
        )
        self._users = frozenset(claim.user_id for claim in claims)
        self._notify()
        if claims:
            self._batch = self._batch_of(claims)
            await self._batch.run()
            self._batch = None
        return bool(claims)

    def _batch_of(self, claims: Sequence[ClaimedUpdate]) -> Batch:
        return Batch(self._school, claims, self._ended, self._note)

    async def _shed(self) -> None:
        """End what has waited for too long, also while a batch is trained; for ever."""
        while True:
            if self.lease.held:
                try:
                    # What would be over its time at the next look, late as that may be, is over it now.
                    shed = await asyncio.to_thread(self._store.shed_updates, self.lease.owner, 2 * self._poll_s)
                except LeaseLost:
                    shed = {}  # the loop takes it again
                except Exception as error:
                    self._note(error)
                    shed = {}
                if shed:
                    self.outcomes.update({Outcome(name): num for name, num in shed.items()})
                    self._notify()
            await asyncio.sleep(self._poll_s)

    async def _upkeep(self) -> None:
        """Retention and the sweeping of orphans run by themselves."""
        if time.monotonic() - self._upkeep_s > UPKEEP_S:
            self._upkeep_s = time.monotonic()
            await asyncio.to_thread(self._store.prune)
            await asyncio.to_thread(self._store.sweep)

    # --- what others may ask ---------------------------------------------------------------------------------------

    async def settled(self, user_id: str | None, timeout_s: float | None) -> bool:
        """Return True once nothing of the user (None: of anybody) waits or runs, False after ``timeout_s``."""
        end_s = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            changed = self._changed
            if not await asyncio.to_thread(self._pending, user_id):
                return True
            left_s = self._poll_s if end_s is None else min(self._poll_s, end_s - time.monotonic())
            if left_s <= 0:
                return False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await changed.wait()

    async def idle(self, user_id: str) -> None:
        """Return once this process has let go of everything that an update of the user put down."""
        while self._users is None or user_id in self._users:
            await self._changed.wait()

    @contextlib.asynccontextmanager
    async def held(self, user_id: str) -> AsyncIterator[None]:
        """Leave the user's follow-ups in the queue for as long as the block lasts; what is under way ends before it."""
        self._held[user_id] += 1
        try:
            await self.idle(user_id)
            yield
        finally:
            self._held[user_id] -= 1
            self._held += Counter()  # drops who is held by nobody any more
            self.wake()

    def state(self) -> dict[str, Any]:
        """Return who trains, and how it goes; may be asked from any thread."""
        held, holder = self.lease.held, self.lease.holder()
        if held:
            lease = "serves and trains"
        elif holder is None:
            lease = "serves and queues; no process trains"
        else:
            lease = f"serves and queues; another process trains ({holder})"
        batch = self._batch
        return {
            "lease": lease,
            "lease_held": held,
            "running_updates": len(batch.open) if batch else 0,
            "last_fault": self.last_fault,
            "reviews": self.reviewer.state(),
        }

    def _pending(self, user_id: str | None) -> bool:
        if user_id is None:
            return self._store.status().pending_updates > 0
        return any(update.outcome == Outcome.QUEUED for update in self._store.updates(user_id))

    def _ended(self, claim: ClaimedUpdate, outcome: Outcome | None) -> None:
        if outcome is not None:
            self.outcomes[outcome] += 1
        if outcome is Outcome.APPLIED:
            self.reviewer.note(claim.user_id)
        self._notify()

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _note(self, error: Exception) -> None:
        self.last_fault = type(error).__name__
        log.warning("learning stumbled: %s", self.last_fault, exc_info=log.isEnabledFor(logging.DEBUG))
