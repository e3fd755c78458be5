"""Committed versions and their files."""

from pathlib import Path
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from adapters_store.changes import Changes
from adapters_store.core import locked_user
from adapters_store.errors import AdapterCorrupt, NotFound
from adapters_store.folder import CONFIG, WEIGHTS, check_folder, folder_digest, moments_digest
from adapters_store.ids import checked_id
from adapters_store.schema import HeadRow, VersionRow
from adapters_store.types import Version


class Versions(Changes):
    def head(self, user_id: str, base_digest: str) -> Version | None:
        """Return the version that serves the user on this base; None for the base model. One indexed SELECT."""
        with self._read() as session:
            row = session.scalars(_head_query(user_id, base_digest)).one_or_none()
            return None if row is None else as_version(row)

    def has_other_heads(self, user_id: str, base_digest: str) -> bool:
        """Return whether the user has heads for other bases and never began on this one."""
        query = select(HeadRow.base_digest, HeadRow.number).where(HeadRow.user_id == checked_id("user_id", user_id))
        with self._read() as session:
            heads = dict(session.execute(query).all())
        return base_digest not in heads and any(number is not None for number in heads.values())

    def versions(self, user_id: str, base_digest: str | None = None) -> list[Version]:
        """Return the user's versions, newest first; with ``base_digest`` those for that base."""
        query = select(VersionRow).where(VersionRow.user_id == checked_id("user_id", user_id))
        if base_digest is not None:
            query = query.where(VersionRow.base_digest == base_digest)
        with self._read() as session:
            return [as_version(row) for row in session.scalars(query.order_by(VersionRow.number.desc()))]

    def version(self, user_id: str, number: int) -> Version:
        with self._read() as session:
            return as_version(version_row(session, user_id, number))

    def pin(self, user_id: str, number: int, pinned: bool) -> None:
        """Keep a version for ever, or leave it to retention again."""

        def work(session: Session) -> None:
            locked_user(session, user_id)
            version_row(session, user_id, number).pinned = bool(pinned)

        self._write(work)

    def path(self, version: Version) -> Path:
        """Return the version's folder on the local disk.

        Raises:
            NotFound: retention or ``forget`` has removed it.
        """
        folder = self._blobs.path(version_key(version))
        for name in (CONFIG, WEIGHTS):
            if not (folder / name).is_file():
                raise NotFound(f"version {version.name} has lost {name}")
        return folder

    def moments_path(self, version: Version) -> Path | None:
        """Return the optimizer's file that belongs to the version; None if it was not kept or is not what it was."""
        if version.moments_digest is None:
            return None
        try:
            file = self._blobs.path(f"{moments_key(version)}/optimizer.safetensors")
            return file if moments_digest(file) == version.moments_digest else None
        except (NotFound, FileNotFoundError):
            return None

    def verify(self, version: Version) -> None:
        """Read a version's files and compare them with its row.

        Raises:
            AdapterCorrupt: they are not the bytes that were committed.
        """
        folder = self.path(version)
        check_folder(folder, max_bytes=self._limits.max_adapter_bytes)
        if (digest := folder_digest(folder)) != version.digest:
            raise AdapterCorrupt(f"version {version.name} has digest {digest[:16]} on disk")


def _head_query(user_id: str, base_digest: str) -> Select[VersionRow]:
    joined = (HeadRow.user_id == VersionRow.user_id) & (HeadRow.number == VersionRow.number)
    mine = (HeadRow.user_id == checked_id("user_id", user_id), HeadRow.base_digest == base_digest)
    return select(VersionRow).join(HeadRow, joined).where(*mine)


def version_row(session: Session, user_id: str, number: int) -> VersionRow:
    row = session.get(VersionRow, (checked_id("user_id", user_id), number))
    if row is None:
        raise NotFound(f"user {user_id} has no version {number!r}; {_known(session, user_id)}")
    return row


def _known(session: Session, user_id: str) -> str:
    query = select(func.min(VersionRow.number), func.max(VersionRow.number)).where(VersionRow.user_id == user_id)
    first, last = session.execute(query).one()
    return "there is none" if last is None else f"there are {first} to {last}"


def version_key(version: Version) -> str:
    return f"users/{version.user_id}/versions/{version.name}"


def moments_key(version: Version) -> str:
    return f"users/{version.user_id}/moments/{version.name}"


def as_version(row: VersionRow) -> Version:
    fields: dict[str, Any] = {column.key: getattr(row, column.key) for column in VersionRow.__table__.columns}
    return Version(**fields)
