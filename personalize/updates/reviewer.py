"""Who looks at users' newest versions again, now and then, while nothing else is to be done."""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable

from adapters_store.errors import LeaseLost, NotFound
from adapters_store.types import Version
from personalize.types import Review, ReviewRequest
from personalize.updates.batch import School
from personalize.updates.lease import Lease
from personalize.updates.lessons import standing_wishes
from personalize.updates.storage import reference
from personalize.updates.threads import whole

log = logging.getLogger(__name__)


class Reviewer:
    """Reviews one version at a time; a breach takes the user back to the last version that passed.

    Semantics: a user is looked at after each version that this process has published for him, as soon as the device
    has nothing else to do. What the learner says of a version counts only while that is the head, and only from the
    holder of the learning lease: the store sees to both. What goes wrong, or is stopped, is left until the user's next
    version.

    Attributes:
        verdicts: how many versions of this process "passed", were "withdrawn", or did not pass but were "overtaken":
            a newer one served already, and is looked at next.

    Args:
        every: versions between two reviews of a user; 0 never reviews.
        on_fault: told of every exception.
    """

    def __init__(self, school: School, lease: Lease, every: int, on_fault: Callable[[Exception], None]):
        self.verdicts: Counter[str] = Counter()
        self._school = school
        self._store = school.store
        self._lease = lease
        self._every = every
        self._on_fault = on_fault
        self._waiting: dict[str, None] = {}
        self._noted = asyncio.Event()
        self._under_way: tuple[str, asyncio.Task[None]] | None = None

    def note(self, user_id: str) -> None:
        """Look at the user's head when there is time."""
        if self._every:
            self._waiting[user_id] = None
            self._noted.set()

    async def run(self) -> None:
        """Review for ever; cancelling it ends what is under way."""
        while True:
            await self._noted.wait()
            while self._waiting:
                user_id = next(iter(self._waiting))
                del self._waiting[user_id]
                await self._take(user_id)
            self._noted.clear()

    def users(self) -> set[str]:
        """Return the ids of the users who are looked at, or will be."""
        return {*self._waiting, *([self._under_way[0]] if self._under_way else [])}

    async def stop(self, user_id: str) -> None:
        """Look at the user no more; the engine has let go of his version afterwards."""
        self._waiting.pop(user_id, None)
        if self._under_way and self._under_way[0] == user_id:
            work = self._under_way[1]
            work.cancel()
            await asyncio.wait({work})
            if self._under_way and self._under_way[1] is work:  # else the next user is looked at already
                self._under_way = None

    def state(self) -> dict[str, int]:
        """Return counts for the operator."""
        return {"waiting": len(self.users()), **self.verdicts}

    async def _take(self, user_id: str) -> None:
        work = asyncio.create_task(self._look(user_id))
        self._under_way = user_id, work
        try:
            await asyncio.wait({work})
            if not work.cancelled() and isinstance(error := work.exception(), Exception):
                self._on_fault(error)
        finally:
            work.cancel()
            await asyncio.wait({work})
            self._under_way = None

    async def _look(self, user_id: str) -> None:
        """Review the user's head if it is time."""
        if not self._lease.held or user_id in self._school.forgotten:
            return
        with contextlib.suppress(NotFound, LeaseLost):  # forgotten or pruned meanwhile; another process judges now
            due = await whole(self._due, user_id)
            if due is None:
                return
            version, request = due
            if (review := await self._school.trainer.review(request)) is not None:
                await whole(self._record, version, review)

    def _due(self, user_id: str) -> tuple[Version, ReviewRequest] | None:
        version = self._store.due_review(user_id, self._school.base_digest, self._every)
        adapter = reference(self._store, version)
        if version is None or adapter is None:
            return None
        return version, ReviewRequest(adapter, standing_wishes(self._store, version))

    def _record(self, version: Version, review: Review) -> None:
        owner, metrics = self._lease.owner, dict(review.metrics)
        head = self._store.record_review(owner, version.user_id, version.number, review.breach, metrics)
        if review.breach is None:
            self.verdicts["passed"] += 1
        else:
            self.verdicts["overtaken" if head is not None and head > version.number else "withdrawn"] += 1
            log.warning("version %d failed its review (%s); the head is now %s", version.number, review.breach, head)
