"""Handing a user everything that is stored about them."""

import json
import os
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy import select

from adapters_store.audit import append
from adapters_store.errors import InvalidValue, NotFound
from adapters_store.files import storage_errors, sync_directory, sync_file
from adapters_store.ids import new_id
from adapters_store.publishing import Publishing
from adapters_store.schema import AuditRow, ConsentRow, HeadRow, TurnRow
from adapters_store.types import Version
from adapters_store.zipped import EARLIEST, add_folder, pack


class Archive(Publishing):
    def export_user(self, user_id: str, to: Path) -> None:
        """Write a zip with the user's settings, consents, turns, updates, audit lines and every version's folder.

        A version's folder in it is a PEFT folder again once unpacked; ``import_version`` takes it back. Versions
        and turns that retention removes meanwhile are left out. A process that is killed leaves ``<to>.new-<id>`` with
        the user's data in it, which nothing sweeps away.

        Args:
            to: file to make; it must not exist. Readable by its owner only.

        Raises:
            NotFound: no such user (any more), or a version has lost its files.
            StoreFull: no space; no file is left behind.
        """
        if self.get_user(user_id) is None:
            raise NotFound(f"no user {user_id!r}")
        _make_file(to, lambda temporary: self._write_zip(user_id, temporary))
        self._write(lambda session: append(session, self._clock(), "store", "user.export", user_id))

    def export_version(self, user_id: str, number: int, to: Path) -> None:
        """Write a zip of one version's PEFT folder; ``import_version`` takes it back.

        Args:
            to: file to make; it must not exist. Readable by its owner only.

        Raises:
            NotFound: no such user or version.
            StoreFull: no space; no file is left behind.
        """
        if self.get_user(user_id) is None:
            raise NotFound(f"no user {user_id!r}")
        folder = self.path(self.version(user_id, number))
        _make_file(to, lambda temporary: pack(folder, temporary))
        detail = {"number": number}
        self._write(lambda session: append(session, self._clock(), "store", "version.export", user_id, detail))

    def _write_zip(self, user_id: str, path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w+b") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, value in self._documents(user_id):
                archive.writestr(zipfile.ZipInfo(name, EARLIEST), _json(value))
            for version in self.versions(user_id):
                self._add_version(archive, version)

    def _add_version(self, archive: zipfile.ZipFile, version: Version) -> None:
        try:
            add_folder(archive, self.path(version), f"versions/{version.name}/")
        except (NotFound, FileNotFoundError):
            if self.get_user(version.user_id) is None:
                _gone(version.user_id)
            if version.number in {one.number for one in self.versions(version.user_id)}:
                raise  # else retention took it since the listing: a row goes before its files

    def _documents(self, user_id: str) -> Iterator[tuple[str, Any]]:
        yield "user.json", {**asdict(self.get_user(user_id) or _gone(user_id)), **self._rows(user_id)}
        yield "updates.json", [asdict(update) for update in self.updates(user_id, limit=1_000_000)]
        yield "versions.json", [{**asdict(version), "name": version.name} for version in self.versions(user_id)]
        with self._read() as session:
            query = select(TurnRow.turn_id).where(TurnRow.user_id == user_id).order_by(TurnRow.created_s)
            turn_ids = list(session.scalars(query))
        for turn_id in turn_ids:
            try:
                yield f"turns/{turn_id}.json", asdict(self.load_turn(turn_id))
            except NotFound:  # retention took it, or its parent, since the listing
                continue

    def _rows(self, user_id: str) -> dict[str, Any]:
        """Return consents, heads and audit lines as plain values."""
        with self._read() as session:
            consents = session.scalars(select(ConsentRow).where(ConsentRow.user_id == user_id)).all()
            heads = session.scalars(select(HeadRow).where(HeadRow.user_id == user_id)).all()
            lines = session.scalars(
                select(AuditRow).where(AuditRow.object_id == user_id).order_by(AuditRow.number)
            ).all()
        return {
            "consents": [_plain(row, ("granted", "text_version", "actor", "created_s")) for row in consents],
            "heads": {row.base_digest: row.number for row in heads},
            "audit": [_plain(row, ("number", "created_s", "actor", "action", "detail")) for row in lines],
        }


def _make_file(to: Path, write: Callable[[Path], None]) -> None:
    """Make a file that must not exist yet: whole and synced under its name, or not at all."""
    to = Path(to)
    if to.exists():
        raise InvalidValue("to", str(to), "a file that does not exist yet")
    temporary = to.with_name(f"{to.name}.new-{new_id()}")
    with storage_errors():
        try:
            write(temporary)
            sync_file(temporary)
            os.rename(temporary, to)
            sync_directory(to.absolute().parent)
        finally:
            temporary.unlink(missing_ok=True)


def _plain(row: Any, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(row, name) for name in names}


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=1).encode("utf-8", "surrogatepass")


def _gone(user_id: str):
    raise NotFound(f"user {user_id!r} was forgotten during the export")
