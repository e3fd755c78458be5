"""Finding and removing files that no row names: what crashes leave behind."""

import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain

from sqlalchemy import select

from adapters_store.blobs import Blob
from adapters_store.errors import StoreError
from adapters_store.ids import HEX32
from adapters_store.schema import TurnRow, UpdateRow, UserRow, VersionRow
from adapters_store.turns import Turns
from adapters_store.types import SweepReport
from adapters_store.versions import as_version

KINDS = ("versions", "moments", "turns", "follow_ups")
TURN = re.compile(rf"users/({HEX32.pattern})/turns/({HEX32.pattern})\.json")


class Sweeping(Turns):
    def sweep(self) -> SweepReport:
        """Remove orphans older than the grace period; the listing comes first, so a row written since saves its file.

        Each goes as it is found, so that little can happen in between. A turn may be recorded again under the same id;
        it is looked up once more. Times of files are the file system's, so the store's clock must tell the time of day.
        """
        num_removed = num_bytes = 0
        for orphan in chain(self._orphans(), self._stale_stages(), self._torn()):
            with suppress(StoreError):  # it stays for the next time
                if (size := self._delete_orphan(orphan)) is not None:
                    num_bytes += size
                    num_removed += 1
        return SweepReport(num_removed, num_bytes)

    def _delete_orphan(self, orphan: Blob) -> int | None:
        """Return the bytes that are gone; None where the file is no orphan any more."""
        turn = TURN.fullmatch(orphan.key)
        return self._delete_turn_file(*turn.groups()) if turn else self._blobs.delete(orphan.key)

    def _orphans(self) -> Iterator[Blob]:
        for home in self._blobs.children("users"):
            if not HEX32.fullmatch(home.name):
                continue
            listed = {kind: self._old(f"{home.key}/{kind}") for kind in KINDS}
            known = self._known(home.name)
            if known is None:
                if self._is_old(home):
                    yield home
                continue
            for kind, blobs in listed.items():
                yield from (blob for blob in blobs if blob.name not in known[kind])

    def _known(self, user_id: str) -> dict[str, set[str]] | None:
        """Return the file names that the user's rows name, by kind; None if there is no such user."""
        mine = (UpdateRow.user_id == TurnRow.user_id) & (UpdateRow.turn_id == TurnRow.turn_id)
        with self._read() as session:
            if session.get(UserRow, user_id) is None:
                return None
            versions = [
                as_version(row) for row in session.scalars(select(VersionRow).where(VersionRow.user_id == user_id))
            ]
            turns = set(session.scalars(select(TurnRow.turn_id).where(TurnRow.user_id == user_id)))
            updates = session.scalars(
                select(UpdateRow.update_id).join(TurnRow, mine).where(UpdateRow.user_id == user_id)
            )
            return {
                "versions": {version.name for version in versions},
                "moments": {version.name for version in versions if version.moments_digest},
                "turns": {f"{turn_id}.json" for turn_id in turns},
                "follow_ups": {f"{update_id}.txt" for update_id in updates},
            }

    def _stale_stages(self) -> Iterator[Blob]:
        for owner in self._blobs.children("staging"):
            stages = list(self._blobs.children(owner.key))
            old = [blob for blob in stages if self._is_old(blob) and not self._grows(blob)]
            if len(old) == len(stages) and self._is_old(owner):
                yield owner
            else:
                yield from old

    def _grows(self, stage: Blob) -> bool:
        """Whether a file in it was written lately: that does not move the folder's own time."""
        return not all(self._is_old(blob) for blob in self._blobs.children(stage.key))

    def _torn(self) -> Iterator[Blob]:
        """Yield what a crash left half written among the bases; they themselves stay."""
        return (blob for blob in self._old("bases") if blob.name.startswith(".new-"))

    def _old(self, key: str) -> list[Blob]:
        return [blob for blob in self._blobs.children(key) if self._is_old(blob)]

    def _is_old(self, blob: Blob) -> bool:
        return blob.modified_s <= self._clock() - self._limits.orphan_grace_s
