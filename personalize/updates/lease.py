"""Who trains: one process at a time, by a lease in the store that a heartbeat renews."""

import asyncio
import logging
import secrets
import time

from adapters_store import Store
from adapters_store.errors import StoreError
from personalize.updates.threads import whole

TTL_S = 15.0
log = logging.getLogger(__name__)


class Lease:
    """This process's claim to the learning lease.

    Semantics: the lease saves work, it does not protect data: what a late holder trains loses at publish.

    Attributes:
        owner: random name of this process.
    """

    def __init__(self, store: Store, ttl_s: float = TTL_S):
        self.owner = secrets.token_hex(8)
        self._store = store
        self._ttl_s = ttl_s
        self._held_until_s = 0.0

    @property
    def held(self) -> bool:
        return time.monotonic() < self._held_until_s

    def holder(self) -> str | None:
        """Return the name of the process that trains, None if there is none."""
        return self._store.lease_holder()

    async def keep(self) -> None:
        """Take the lease or renew it, for ever."""
        while True:
            await self.renew()
            await asyncio.sleep(self._ttl_s / 3)

    async def renew(self) -> bool:
        """Return whether the lease is held after this attempt; a cancelled one ends first, so none comes later."""
        asked_s = time.monotonic()  # before asking, so that we never believe in it longer than the store does
        try:
            got = await whole(self._store.acquire_lease, self.owner, self._ttl_s)
        except StoreError as error:
            log.warning("the learning lease could not be renewed: %s", error.code)
            return self.held
        self._held_until_s = asked_s + self._ttl_s if got else 0.0
        return got

    async def give_up(self) -> None:
        """Let another process train at once."""
        self._held_until_s = 0.0
        try:
            await asyncio.to_thread(self._store.release_lease, self.owner)
        except StoreError as error:
            log.warning("the learning lease could not be released: %s; it runs out by itself", error.code)
