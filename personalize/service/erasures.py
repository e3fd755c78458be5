"""Users whom another process on the same store has forgotten: what this process still holds of them goes too."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection

from adapters_store import Store

POLL_S = 1.0
LOOKS_PER_SWEEP = 60
log = logging.getLogger(__name__)


class Erasures:
    """Looks at the held users whose heads have moved, as every erasure moves one.

    Now and then everybody who is held is looked at: somebody may have come to be held just after the move was read.

    Args:
        held: returns the ids of the users of whom this process holds something.
        let_go: called with the id of a held user who is no user any more.
    """

    def __init__(
        self,
        store: Store,
        held: Callable[[], Collection[str]],
        let_go: Callable[[str], Awaitable[None]],
        poll_s: float = POLL_S,
        looks_per_sweep: int = LOOKS_PER_SWEEP,
    ):
        self._store = store
        self._held = held
        self._let_go = let_go
        self._poll_s = poll_s
        self._looks_per_sweep = looks_per_sweep
        self._looks = 0
        self._counter: int | None = None  # where the change counter stood at the last look that went well

    async def run(self) -> None:
        """Look for ever; what goes wrong is tried again at the next look."""
        while True:
            await asyncio.sleep(self._poll_s)
            try:
                await self._look()
            except Exception as error:
                self._counter = None
                log.warning("a forgotten user could not be let go of: %s", type(error).__name__)

    async def _look(self) -> None:
        moved = await self._moved()
        held = self._held()
        for user_id in held if moved is None else moved.intersection(held):
            if await asyncio.to_thread(self._store.get_user, user_id) is None:
                await self._let_go(user_id)

    async def _moved(self) -> frozenset[str] | None:
        """Return the users whose heads have moved since the last look; None where it may concern everybody."""
        self._looks += 1
        if self._counter is None:
            self._counter = await asyncio.to_thread(self._store.change_counter)
            return None
        moves = await asyncio.to_thread(self._store.heads_moved_since, self._counter)
        self._counter = moves.number
        return None if self._looks % self._looks_per_sweep == 0 else moves.user_ids
