"""Work for users that may have to end before it is done: a user is forgotten, or the service closes."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from personalize.errors import Cancelled

T = TypeVar("T")


class Tasks:
    """What is under way, and for whom; ``len`` counts it."""

    def __init__(self) -> None:
        self._whose: dict[asyncio.Task[Any], str] = {}
        self._stopped: dict[asyncio.Task[Any], str] = {}

    def __len__(self) -> int:
        return len(self._whose)

    async def run(self, user_id: str, work: Coroutine[Any, Any, T]) -> T:
        """Return what ``work`` comes to; a cancelled caller cancels it.

        Raises:
            Cancelled: it was stopped.
        """
        task = asyncio.create_task(work)
        self._whose[task] = user_id
        try:
            return await task
        except asyncio.CancelledError:
            if (why := self._stopped.get(task)) is not None:
                raise Cancelled(why) from None
            raise
        finally:
            del self._whose[task]
            self._stopped.pop(task, None)

    def users(self) -> set[str]:
        """Return the ids of the users for whom something is under way."""
        return set(self._whose.values())

    async def stop(self, why: str, user_id: str | None = None) -> None:
        """End the work for one user, or all of it; it has let go of everything afterwards."""
        tasks = [task for task, whose in self._whose.items() if user_id in (None, whose) and not task.done()]
        for task in tasks:
            self._stopped[task] = why
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
