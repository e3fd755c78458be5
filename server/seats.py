"""How many replies one user may have waiting and running, so that nobody fills the queue for everybody."""

import contextlib
from collections import Counter
from collections.abc import AsyncGenerator, Iterator

from personalize.errors import TooManyRequests
from personalize.types import ChatRequest, ReplyChunk, UserId


class Seats:
    """Counts the replies under way by person; a request of n choices takes n seats, in one go.

    Semantics: who has a seat left may sit down, whatever n is (its own limit bounds it). Requests for nobody in
    particular are not counted. A person whom one key names by the application's id and another by the random id is
    counted under each.

    Args:
        limit: replies of one person.
    """

    def __init__(self, limit: int):
        self._limit = limit
        self._taken: Counter[tuple[str, bool]] = Counter()

    @contextlib.contextmanager
    def taken(self, request: ChatRequest) -> Iterator[None]:
        """Hold the request's seats for as long as the block lasts.

        Raises:
            TooManyRequests: the person has none left.
        """
        if request.user is None:
            yield
            return
        person = (str(request.user), isinstance(request.user, UserId))
        if self._taken[person] >= self._limit:
            raise TooManyRequests(f"{self._taken[person]} replies for this user are under way; allowed: {self._limit}")
        self._taken[person] += request.n
        try:
            yield
        finally:
            self._taken[person] -= request.n
            if not self._taken[person]:
                del self._taken[person]

    async def stream(
        self, request: ChatRequest, chunks: AsyncGenerator[ReplyChunk, None]
    ) -> AsyncGenerator[ReplyChunk, None]:
        """Yield ``chunks`` on the request's seats, and close them with it."""
        async with contextlib.aclosing(chunks):
            with self.taken(request):
                async for chunk in chunks:
                    yield chunk
