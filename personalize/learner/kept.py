"""What was found out once and would be found again: kept in memory by whose it is, least recently used out first."""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Kept(Generic[K, V]):
    """Values by owner and key.

    Only the thread that owns the device touches it, but for ``owners``, which any thread may ask. What belongs to a
    nameless owner, "", is never kept: nobody could ask to have it forgotten.

    Args:
        most: values that are kept, of all owners.
    """

    def __init__(self, most: int):
        self._most = most
        # No OrderedDict: going through one computes hashes, some of them in Python, and another thread may come in.
        self._values: dict[tuple[str, K], V] = {}

    def __len__(self) -> int:
        return len(self._values)

    def get(self, owner: str, key: K, find: Callable[[], V]) -> V:
        """Return what is kept, else what ``find`` returns, which is kept from now on."""
        name = (owner, key)
        value = self._values[name] if name in self._values else find()
        self.put(owner, key, value)
        return value

    def peek(self, owner: str, key: K) -> V | None:
        """Return what is kept, None where nothing is."""
        return self._values.get((owner, key))

    def put(self, owner: str, key: K, value: V) -> None:
        """Keep a value as the most recently used one."""
        if not owner:
            return
        self._values.pop((owner, key), None)
        self._values[owner, key] = value
        while len(self._values) > self._most:
            del self._values[next(iter(self._values))]

    def forget(self, owner: str) -> None:
        """Let go of everything that is this owner's."""
        for name in [name for name in self._values if name[0] == owner]:
            del self._values[name]

    def owners(self) -> frozenset[str]:
        """Return those of whom something is kept."""
        return frozenset(owner for owner, _ in tuple(self._values))
