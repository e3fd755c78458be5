"""API keys: made once, shown once, kept as hashes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from adapters_store import Store
from adapters_store.types import ApiKey
from personalize.access.principal import SCOPES, Principal, Scope
from personalize.config import Settings
from personalize.errors import InvalidParameter, NotFound, Unauthenticated
from personalize.types import UserId
from personalize.updates.storage import open_store, translated


class HoldsStore(Protocol):
    """A ``Personalizer``, or whatever else has the store open."""

    @property
    def store(self) -> Store: ...


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """A key without its secret; ``user_id`` is set for scope "user" only."""

    key_id: str
    scope: Scope
    user_id: str | None
    label: str
    created_s: float
    revoked: bool


@dataclass(frozen=True, slots=True)
class _Opened:
    store: Store


class Access:
    """The keys of one store: ``Access(personalizer)``, or ``async with Access.open(settings)`` without a model."""

    def __init__(self, holder: HoldsStore):
        self._store = holder.store

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator["Access"]:
        """Open the store of ``settings`` for as long as the context lasts.

        Raises:
            StorageUnavailable: it cannot be opened.
        """
        store = await asyncio.to_thread(open_store, settings)
        try:
            yield cls(_Opened(store))
        finally:
            await asyncio.to_thread(store.close)

    async def authenticate(self, secret: str | None) -> Principal:
        """Return the holder of ``secret``.

        Raises:
            Unauthenticated: missing, unknown or revoked, without saying which.
        """
        with translated():
            key = await asyncio.to_thread(self._store.verify_key, secret) if secret else None
        if key is None:
            raise Unauthenticated("no valid API key was given")
        return Principal(key.key_id, key.scope, UserId(key.user_id) if key.user_id else None)

    async def create_key(self, scope: Scope, user: str | None = None, label: str = "") -> tuple[KeyInfo, str]:
        """Return a new key and its secret, which is never shown again.

        Args:
            user: whom a key of scope "user" is; a new external id becomes a user.
        """
        if scope not in SCOPES:
            raise InvalidParameter("scope", scope, ", ".join(SCOPES))
        if (scope == "user") != (user is not None):
            raise InvalidParameter("user", user, "a user with scope 'user', none with the others")
        with translated():
            return await asyncio.to_thread(self._create, scope, user, label)

    async def list_keys(self) -> tuple[KeyInfo, ...]:
        with translated():
            return tuple(_info(key) for key in await asyncio.to_thread(self._store.list_keys))

    async def revoke_key(self, key_id: str) -> None:
        """Make a secret worthless from the next request on.

        Raises:
            NotFound: there is no such key.
        """
        with translated():
            await asyncio.to_thread(self._store.revoke_key, key_id)

    async def has_keys(self) -> bool:
        with translated():
            return await asyncio.to_thread(self._store.has_keys)

    async def ensure_admin_key(self) -> str | None:
        """Return the secret of a first admin key, to be printed once; None where there are keys already."""
        return None if await self.has_keys() else (await self.create_key("admin", label="first"))[1]

    def _create(self, scope: Scope, user: str | None, label: str) -> tuple[KeyInfo, str]:
        key, secret = self._store.create_key(scope, self._owner(user), label)
        return _info(key), secret

    def _owner(self, user: str | None) -> str | None:
        if user is None:
            return None
        if not isinstance(user, UserId):
            return self._store.ensure_user(user).user_id
        found = self._store.get_user(user)
        if found is None or found.reserved:
            raise NotFound("no such user", param="user")
        return user


def _info(key: ApiKey) -> KeyInfo:
    return KeyInfo(key.key_id, key.scope, key.user_id, key.label, key.created_s, key.revoked_s is not None)
