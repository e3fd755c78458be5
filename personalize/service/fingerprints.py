"""Proof that a user is served with the same bits as before."""

import asyncio
from collections.abc import Sequence

from adapters_store import Store
from personalize.backends import Opened
from personalize.service.heads import Heads
from personalize.service.people import find_user
from personalize.types import AdapterRef, Message, UserId
from personalize.updates.storage import reference, translated

PROMPTS = ("Hello.", "Tell me about tea.", "What is 2 plus 3?", "Write one line about the sea.")


class Fingerprints:
    """Digests of what users are served with."""

    def __init__(self, store: Store, opened: Opened, heads: Heads):
        self._store = store
        self._opened = opened
        self._heads = heads

    async def of(self, users: Sequence[str]) -> dict[str, str]:
        """Return, by user, the version's name and a digest of its logits; see ``Personalizer.fingerprint``."""
        refs = await asyncio.to_thread(lambda: [self._reference(user) for user in users])
        prompts = [self._opened.renderer.render((Message("user", text),)) for text in PROMPTS]
        digests = await self._opened.trainer.fingerprint(refs, prompts)
        names = ["base" if ref is None else ref.name for ref in refs]
        return {user: f"{name}:{digest}" for user, name, digest in zip(users, names, digests, strict=True)}

    def _reference(self, user: str) -> AdapterRef | None:
        with translated():
            found = find_user(self._store, user)
            if found is None and isinstance(user, UserId):
                return None
            version = self._heads.of_newcomers() if found is None else self._heads.current(found.user_id)
            return reference(self._store, version)
