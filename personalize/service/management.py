"""What people may see and change of their own, asynchronously; the work is done by ``People`` in a thread."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from personalize.service.people import People
from personalize.service.population import Population
from personalize.types import PopulationInfo, PopulationUse, UpdateInfo, UserId, UserInfo, VersionInfo


class Management:
    """The part of ``Personalizer`` that needs no model.

    Raises, in every method:
        NotFound: no such user, version or update.
        StorageUnavailable: the store cannot be read or, where something is changed, written.
    """

    def __init__(self, people: People, population: Population):
        self._people = people
        self._population = population

    # --- learning ----------------------------------------------------------------------------------------------------

    async def updates(self, user: str, limit: int = 100) -> tuple[UpdateInfo, ...]:
        """Return the user's newest updates, the newest first."""
        return await asyncio.to_thread(self._people.updates, user, limit)

    async def update(self, update_id: str) -> UpdateInfo:
        """Return one follow-up's way through the queue."""
        return await asyncio.to_thread(self._people.update, update_id)

    async def update_owner(self, update_id: str) -> UserId:
        """Return whose update it is."""
        return await asyncio.to_thread(self._people.owner_of_update, update_id)

    async def pause(self, user: str) -> UserInfo:
        """Learn nothing more from the user until ``resume``; the adapter serves on."""
        return await asyncio.to_thread(self._people.set_learning, user, "paused")

    async def resume(self, user: str) -> UserInfo:
        """Learn from the user again."""
        return await asyncio.to_thread(self._people.set_learning, user, "active")

    async def consent(self, user: str, granted: bool, *, text_version: str = "default", actor: str = "app") -> UserInfo:
        """Record whether the user agrees to learning; a refusal counts under every setting."""
        return await asyncio.to_thread(self._people.consent, user, granted, text_version, actor)

    # --- users and versions ------------------------------------------------------------------------------------------

    async def user(self, user: str) -> UserInfo:
        """Return what an operator may know of a user."""
        return await asyncio.to_thread(self._people.user, user)

    async def users(self, limit: int = 100, after: str | None = None) -> tuple[UserInfo, ...]:
        """Return a page of users; ``after`` is the last ``user_id`` of the page before."""
        return await asyncio.to_thread(self._people.users, limit, after)

    async def versions(self, user: str) -> tuple[VersionInfo, ...]:
        """Return the user's versions, for every base."""
        return await asyncio.to_thread(self._people.versions, user)

    async def rollback(self, user: str, number: int) -> VersionInfo:
        """Make version ``number`` the head; what waits to be learnt is cancelled."""
        return await asyncio.to_thread(self._people.rollback, user, number)

    async def undo(self, user: str) -> VersionInfo | None:
        """Go back to the head's parent and return it; None: the base, or the population adapter that it began with."""
        return await asyncio.to_thread(self._people.undo, user)

    async def reset(self, user: str) -> None:
        """Serve the base model again; versions stay and can be rolled back to."""
        await asyncio.to_thread(self._people.reset, user)

    async def pin(self, user: str, number: int, pinned: bool = True) -> VersionInfo:
        """Keep a version for ever, or no longer."""
        return await asyncio.to_thread(self._people.pin, user, number, pinned)

    async def export(self, user: str, path: str | Path) -> Path:
        """Write all that is kept about the user into a zip file; return its path."""
        return await asyncio.to_thread(self._people.export, user, Path(path))

    async def export_version(self, user: str, number: int, path: str | Path) -> Path:
        """Write one version's PEFT folder into a zip file; return its path."""
        return await asyncio.to_thread(self._people.export_version, user, number, Path(path))

    async def import_(self, user: str, source: str | Path) -> VersionInfo:
        """Make a PEFT folder, or a zip file of one, the user's new head.

        Raises:
            AdapterError: damaged, hostile, or for another base; nothing has changed.
        """
        return await asyncio.to_thread(self._people.import_, user, Path(source))

    @contextlib.asynccontextmanager
    async def workspace(self, user: str) -> AsyncIterator[Path]:
        """A private folder for files of the user on their way in or out; it goes with the block, or the user."""
        folder = await asyncio.to_thread(self._people.stage, user)
        try:
            yield folder
        finally:
            await asyncio.to_thread(self._people.discard, folder)

    # --- the population adapter --------------------------------------------------------------------------------------

    async def population(self) -> tuple[PopulationInfo, ...]:
        """Return the manifests of all versions of the population adapter, the newest first."""
        return await asyncio.to_thread(self._population.versions)

    async def population_uses(self, user: str) -> tuple[PopulationUse, ...]:
        """Return the versions of the population adapter that a person is part of; the person need not be a user."""
        return await asyncio.to_thread(self._population.uses, user)
