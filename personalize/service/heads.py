"""Which version serves whom now: a process-wide map in front of the store."""

import threading

from adapters_store import Store
from adapters_store.types import Version

MAX_ENTRIES = 100_000


class Heads:
    """Heads of users, for one base.

    Semantics: an entry is trusted only while the store's change counter stands where it stood when the entry was
    read, so a publish, rollback or reset of any process is seen by the next request. The design lets the holder of
    the learning lease skip that check; it is made always, because another process may roll back, and it costs one
    small read in a trip to the store that the request makes anyhow.

    Args:
        population: who has never had a head is served with the population adapter's.
    """

    def __init__(self, store: Store, base_digest: str, population: bool = False):
        self._store = store
        self._base_digest = base_digest
        self._population = population
        self._lock = threading.Lock()
        self._counter = -1
        self._versions: dict[str, Version | None] = {}

    def current(self, user_id: str) -> Version | None:
        """Return the user's head, or what serves instead; None for the base model."""
        counter = self._store.change_counter()
        with self._lock:
            if counter == self._counter and user_id in self._versions:
                return self._versions[user_id]
        version = self._store.head(user_id, self._base_digest)
        if version is None and self._population:
            version = self._store.population_for(user_id, self._base_digest)
        self._keep(counter, user_id, version)
        return version

    def of_newcomers(self) -> Version | None:
        """Return what serves who is seen for the first time; None for the base model."""
        return self._store.population_head(self._base_digest) if self._population else None

    def _keep(self, counter: int, user_id: str, version: Version | None) -> None:
        with self._lock:
            # The head was read after `counter`: it can only be newer, never older, than what the counter stands for.
            if counter > self._counter or len(self._versions) >= MAX_ENTRIES:
                self._versions.clear()
                self._counter = counter
            if counter == self._counter:
                self._versions[user_id] = version
