"""Users whom another process on the same store has forgotten: what this process still holds of them goes too."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection

from adapters_store import Store

POLL_S = 1.0
log = logging.getLogger(__name__)


class Erasures:
    """Looks whenever the store's change counter has moved, which every erasure moves.

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
    ):
        self._store = store
        self._held = held
        self._let_go = let_go
        self._poll_s = poll_s
        self._counter = -1

    async def run(self) -> None:
        """Look for ever; what goes wrong is tried again at the next look."""
        while True:
            await asyncio.sleep(self._poll_s)
            try:
                await self._look()
            except Exception as error:
                self._counter = -1
                log.warning("a forgotten user could not be let go of: %s", type(error).__name__)

    async def _look(self) -> None:
        counter = await asyncio.to_thread(self._store.change_counter)
        if counter == self._counter:
            return
        for user_id in self._held():
            if await asyncio.to_thread(self._store.get_user, user_id) is None:
                await self._let_go(user_id)
        self._counter = counter
