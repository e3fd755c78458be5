"""Requests that wait for a row, in an order that is fair between users."""

from collections import Counter
from collections.abc import Iterator, Mapping
from heapq import heapify, heappop, heappush
from itertools import count, islice

from personalize.engine.sequences import Sequence

User = str | None


class WaitingLine:
    """One line per user; what belongs to nobody shares one line.

    Semantics: the next row goes to the user who holds the fewest rows; among equals to whoever has gone without one for
    longest. A user's own requests are served in the order in which they came. So whoever sends many at once keeps
    nobody else waiting for longer than one of his replies, and everybody gets a row in the end.

    Adding and removing cost the same however many wait; ``in_turn`` costs one look at every waiting *user*.

    Attributes:
        changes: grows with every request that comes or goes.
    """

    def __init__(self):
        self.changes = 0
        self._lines: dict[User, dict[Sequence, None]] = {}
        self._since: dict[User, int] = {}
        self._names: Counter[str | None] = Counter()
        self._clock = count()
        self._num = 0

    def __len__(self) -> int:
        return self._num

    def __iter__(self) -> Iterator[Sequence]:
        for line in self._lines.values():
            yield from line

    def append(self, sequence: Sequence) -> None:
        """Put a request at the end of its user's line."""
        user = sequence.user
        if user not in self._lines:
            self._lines[user], self._since[user] = {}, next(self._clock)
        self._lines[user][sequence] = None
        self._names[sequence.adapter_name] += 1
        self._num += 1
        self.changes += 1

    def remove(self, sequence: Sequence) -> None:
        """Take a request out; its user keeps his turn."""
        user = sequence.user
        del self._lines[user][sequence]
        if not self._lines[user]:
            del self._lines[user], self._since[user]
        self._names[sequence.adapter_name] -= 1
        if not self._names[sequence.adapter_name]:
            del self._names[sequence.adapter_name]
        self._num -= 1
        self.changes += 1

    def serve(self, sequence: Sequence) -> None:
        """Take a request out because it gets a row; its user's turn comes again after the others'."""
        self.remove(sequence)
        if sequence.user in self._since:
            self._since[sequence.user] = next(self._clock)

    def has_name(self, name: str) -> bool:
        """Whether a request for this version waits."""
        return self._names[name] > 0

    def names(self) -> tuple[str | None, ...]:
        """Return the versions that requests wait for; None is the base."""
        return tuple(self._names)

    def in_turn(self, held: Mapping[User, int]) -> Iterator[Sequence]:
        """Yield the requests in the order of service; those that were yielded may be served meanwhile.

        Args:
            held: rows that users hold; who is missing holds none.
        """
        # (rows with those yielded so far, since when without one, user's number in ``users``, requests passed over)
        users = list(self._lines)
        heap = [(held.get(user, 0), self._since[user], number, 0) for number, user in enumerate(users)]
        heapify(heap)
        while heap:
            rows, since, number, passed = heappop(heap)
            user = users[number]
            sequence = next(islice(self._lines.get(user, {}), passed, None), None)
            if sequence is not None:
                yield sequence
                passed += sequence in self._lines.get(user, {})
                since = self._since.get(user, since)  # another one if he was served
                heappush(heap, (rows + 1, since, number, passed))
