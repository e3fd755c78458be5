"""Forgetting a user: the store erases, and this process lets go of all that it holds of the user."""

import asyncio
from collections.abc import Sequence

from adapters_store import Store
from adapters_store.errors import StoreError
from personalize.protocols import InferenceBackend
from personalize.service.chats import Chats
from personalize.service.people import People
from personalize.service.tasks import Tasks
from personalize.types import AdapterRef, ForgetReceipt, UserId
from personalize.updates.consumer import Consumer
from personalize.updates.storage import translated
from personalize.updates.threads import whole


class Forgetting:
    """Ends what is done for a user who was forgotten, here or by another process on the same store.

    Args:
        tasks: what else may be under way for users.
        forgotten: ids of the forgotten; grows here, so that nothing of them is handed to the engine from then on.
    """

    def __init__(
        self,
        store: Store,
        people: People,
        inference: InferenceBackend,
        chats: Chats,
        consumer: Consumer,
        tasks: Sequence[Tasks],
        forgotten: set[str],
    ):
        self._store = store
        self._people = people
        self._inference = inference
        self._chats = chats
        self._consumer = consumer
        self._tasks = tuple(tasks)
        self._forgotten = forgotten

    async def forget(self, user_id: str) -> ForgetReceipt:
        """Erase the user; see ``Personalizer.forget``. Whom the store refuses to erase is a user as before."""
        self._forgotten.add(user_id)
        loaded = self._loaded(user_id)
        try:
            loaded = await asyncio.to_thread(self._references, user_id)
            receipt = await whole(self._people.forget, UserId(user_id))
        except (Exception, asyncio.CancelledError):
            await self._after_fault(user_id, loaded)
            raise
        await self._let_go(user_id, loaded)
        return receipt

    async def let_go(self, user_id: str) -> None:
        """Do here what is left to do about a user whom another process has erased."""
        await self._let_go(user_id, self._loaded(user_id))

    def held(self) -> set[str]:
        """Return the ids of the users for whom something runs, or of whom engine or learner keep something."""
        looked_at = self._consumer.reviewer.users().union(*(tasks.users() for tasks in self._tasks))
        remembered = getattr(self._inference, "remembered_users", frozenset)()
        return self._chats.users() | looked_at | {ref.user_id for ref in self._loaded()} | remembered

    async def _after_fault(self, user_id: str, loaded: Sequence[AdapterRef]) -> None:
        """Either nothing was erased, or the user is gone and only some trace of him resists."""
        if await whole(self._is_user, user_id):
            self._forgotten.discard(user_id)
        else:
            await self._let_go(user_id, loaded)

    async def _let_go(self, user_id: str, loaded: Sequence[AdapterRef]) -> None:
        why = "the user was forgotten"
        self._forgotten.add(user_id)
        await self._chats.cut(why, user_id)
        for tasks in self._tasks:
            await tasks.stop(why, user_id)
        await self._consumer.reviewer.stop(user_id)
        await self._consumer.idle(user_id)
        for ref in loaded:
            await self._inference.unload_adapter(ref)
        if (forget := getattr(self._inference, "forget_user", None)) is not None:
            await forget(user_id)

    def _loaded(self, user_id: str | None = None) -> list[AdapterRef]:
        """What the engine says that it has loaded, of one user or of all."""
        names = getattr(self._inference, "loaded_adapters", tuple)
        refs = [AdapterRef(name, "") for name in names()]
        return [ref for ref in refs if user_id in (None, ref.user_id)]

    def _references(self, user_id: str) -> list[AdapterRef]:
        """Names under which the engine may have loaded something; the folders need not exist any more."""
        with translated():
            return [AdapterRef(version.name, "") for version in self._store.versions(user_id)]

    def _is_user(self, user_id: str) -> bool:
        """Whether the user is one still, as far as the store can say; ``Erasures`` asks it again."""
        try:
            return self._store.get_user(user_id) is not None
        except StoreError:
            return True
