"""Which version serves whom now: a process-wide map in front of the store."""

import threading
from collections import OrderedDict

from adapters_store import Store
from adapters_store.types import Version

MAX_ENTRIES = 100_000


class Heads:
    """Heads of users, for one base.

    Semantics: before every look the store is asked whose heads have moved since the last one, and exactly those
    entries are dropped; so a publish, rollback, reset or erasure of any process is seen by the next request, and costs
    nobody else a thing. Where the store cannot say it (too long ago, or the population adapter has moved) all go. The
    design lets the holder of the learning lease skip the question; it is asked always, because another process may
    roll back, and it is one small read in a trip to the store that the request makes anyhow. Thread-safe.

    Args:
        population: who has never had a head is served with the population adapter's.
        max_entries: users who are remembered; the least recently served go first.
    """

    def __init__(self, store: Store, base_digest: str, population: bool = False, max_entries: int = MAX_ENTRIES):
        self._store = store
        self._base_digest = base_digest
        self._population = population
        self._max_entries = max_entries
        self._lock = threading.Lock()
        self._number: int | None = None  # where the change counter stood when the entries were known to be right
        self._versions: OrderedDict[str, Version | None] = OrderedDict()

    def current(self, user_id: str) -> Version | None:
        """Return the user's head, or what serves instead; None for the base model."""
        number = self._catch_up()
        with self._lock:
            if user_id in self._versions:
                self._versions.move_to_end(user_id)
                return self._versions[user_id]
        version = self._store.head(user_id, self._base_digest)
        if version is None and self._population:
            version = self._store.population_for(user_id, self._base_digest)
        self._keep(number, user_id, version)
        return version

    def of_newcomers(self) -> Version | None:
        """Return what serves who is seen for the first time; None for the base model."""
        return self._store.population_head(self._base_digest) if self._population else None

    def _catch_up(self) -> int:
        """Drop the entries of users whose heads have moved; return the number of the change counter that was seen.

        A head that is read after this call is at least as new as that number.
        """
        since = self._since()
        moves = self._store.heads_moved_since(since)
        with self._lock:
            assert self._number is not None
            # Where another thread has come further, it has dropped these too. A counter that went back is another
            # database's, put in this one's place: then the store does not know whose heads have moved.
            if moves.number > self._number or moves.number < since:
                self._drop(moves.user_ids)
                self._number = moves.number
        return moves.number

    def _since(self) -> int:
        with self._lock:
            if self._number is None:
                self._number = self._store.change_counter()  # once, so nobody waits for it again
            return self._number

    def _drop(self, user_ids: frozenset[str] | None) -> None:
        if user_ids is None:
            self._versions.clear()
            return
        for user_id in user_ids:
            self._versions.pop(user_id, None)

    def _keep(self, number: int, user_id: str, version: Version | None) -> None:
        with self._lock:
            # Where another thread has come further meanwhile, this head may be older than what it dropped.
            if number != self._number:
                return
            self._versions[user_id] = version
            self._versions.move_to_end(user_id)
            if len(self._versions) > self._max_entries:
                self._versions.popitem(last=False)
