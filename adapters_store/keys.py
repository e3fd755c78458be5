"""API keys: only a hash of the secret is kept."""

import hashlib
import hmac
import re
import secrets
from typing import cast

from sqlalchemy import select

from adapters_store.audit import append
from adapters_store.core import Core, locked_user
from adapters_store.errors import InvalidValue, NotFound
from adapters_store.ids import short_text
from adapters_store.schema import ApiKeyRow
from adapters_store.types import ApiKey, Scope

KEY_ID = re.compile(r"[0-9a-f]{12}")
SECRET = re.compile(rf"pk-(?P<key_id>{KEY_ID.pattern})-[A-Za-z0-9_\-]{{43}}")
SCOPES: tuple[Scope, ...] = ("admin", "app", "user")
NOBODY = "0" * 64


class Keys(Core):
    """A secret is ``pk-<public key id>-<256 random bits>``."""

    def create_key(self, scope: Scope, user_id: str | None = None, label: str = "") -> tuple[ApiKey, str]:
        """Return the new key and its secret, which is shown this once.

        Args:
            scope: "admin", "app", or "user"; a user key belongs to ``user_id`` and to nobody else.
        """
        if scope not in SCOPES:
            raise InvalidValue("scope", scope, f"one of {SCOPES}")
        if (scope == "user") != (user_id is not None):
            raise InvalidValue("user_id", user_id, "a user's id for scope 'user', None for every other scope")
        if label:
            short_text("label", label, 100)
        key_id = secrets.token_hex(6)
        secret = f"pk-{key_id}-{secrets.token_urlsafe(32)}"
        key = ApiKey(key_id, scope, user_id, label, self._clock(), None)

        def work(session):
            if user_id is not None:
                locked_user(session, user_id)
            session.add(_row(key, _hash(secret)))
            append(session, key.created_s, "store", "key.create", key_id, {"scope": scope})

        self._write(work)
        return key, secret

    def verify_key(self, secret: str) -> ApiKey | None:
        """Return the key of a secret that is known and not revoked; the comparison takes the same time either way."""
        match = SECRET.fullmatch(secret) if isinstance(secret, str) else None
        if match is None:
            return None
        with self._read() as session:
            row = session.get(ApiKeyRow, match["key_id"])
            same = hmac.compare_digest(_hash(secret), row.secret_hash if row else NOBODY)
            return _key(row) if row is not None and same and row.revoked_s is None else None

    def list_keys(self) -> list[ApiKey]:
        with self._read() as session:
            return [_key(row) for row in session.scalars(select(ApiKeyRow).order_by(ApiKeyRow.created_s))]

    def revoke_key(self, key_id: str) -> None:
        """Make the key's secret worthless, for every process from its next request on.

        Raises:
            NotFound: no such key.
        """
        if not KEY_ID.fullmatch(key_id):  # PostgreSQL would refuse some texts as no texts at all
            raise NotFound(f"no key {key_id!r}")

        def work(session):
            row = session.get(ApiKeyRow, key_id, with_for_update=True)
            if row is None:
                raise NotFound(f"no key {key_id!r}")
            if row.revoked_s is None:
                row.revoked_s = self._clock()
                append(session, row.revoked_s, "store", "key.revoke", row.key_id)

        self._write(work)

    def has_keys(self) -> bool:
        """Return whether any key is valid."""
        with self._read() as session:
            return (
                session.scalars(select(ApiKeyRow.key_id).where(ApiKeyRow.revoked_s.is_(None)).limit(1)).first()
                is not None
            )


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _row(key: ApiKey, secret_hash: str) -> ApiKeyRow:
    return ApiKeyRow(
        key_id=key.key_id,
        secret_hash=secret_hash,
        scope=key.scope,
        user_id=key.user_id,
        label=key.label,
        created_s=key.created_s,
    )


def _key(row: ApiKeyRow) -> ApiKey:
    return ApiKey(row.key_id, cast(Scope, row.scope), row.user_id, row.label, row.created_s, row.revoked_s)
