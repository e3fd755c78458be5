"""What is kept, for how long, and the removal of the rest."""

from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from adapters_store.core import locked_user
from adapters_store.errors import NotFound, StoreError
from adapters_store.limits import Limits
from adapters_store.schema import HeadRow, TurnRow, UserRow, VersionRow
from adapters_store.turns import Turns
from adapters_store.types import PruneReport, Version
from adapters_store.versions import as_version, moments_key, version_key

DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Expired:
    """Versions whose rows are gone, and versions that lost their moments; the files still lie there."""

    versions: tuple[Version, ...] = ()
    moments: tuple[Version, ...] = ()


class Retention(Turns):
    """Rows go first, in a transaction; files after it. A crash between the two leaves orphans for the sweeper."""

    def prune(self) -> PruneReport:
        """Remove old versions, moments and conversations of all users."""
        with self._read() as session:
            user_ids = list(session.scalars(select(UserRow.user_id).where(UserRow.erasing.is_(False))))
        num_versions = num_moments = num_turns = num_bytes = 0
        for user_id in user_ids:
            with suppress(NotFound):  # forgotten meanwhile
                expired = self._write(lambda session, user_id=user_id: self._expire(session, user_id))
                num_versions += len(expired.versions)
                num_moments += len(expired.moments)
                num_bytes += self._delete_expired(expired)
        for user_id, root_id in self._old_conversations():
            with suppress(NotFound):
                turns, size = self._drop_conversation(user_id, root_id, before_s=self._oldest_turn_s())
                num_turns += turns
                num_bytes += size
        return PruneReport(num_versions, num_moments, num_turns, num_bytes)

    def _expire(self, session: Session, user_id: str) -> Expired:
        """Delete the rows of the user's expired versions and moments in this transaction."""
        locked_user(session, user_id)
        rows = {row.number: row for row in session.scalars(select(VersionRow).where(VersionRow.user_id == user_id))}
        heads = set(session.scalars(select(HeadRow.number).where(HeadRow.user_id == user_id)))
        versions = [as_version(row) for row in rows.values()]
        kept = kept_versions(versions, heads, self._clock(), self._limits)
        with_moments = kept_moments(versions, heads, self._limits)
        old = tuple(version for version in versions if version.number not in kept)
        bare = tuple(version for version in versions if version.moments_digest and version.number not in with_moments)
        for version in old:
            session.delete(rows[version.number])
        left = [version.number for version in bare if version.number in kept]
        mine = (VersionRow.user_id == user_id, VersionRow.number.in_(left))
        session.execute(update(VersionRow).where(*mine).values(moments_digest=None))
        return Expired(old, bare)

    def _delete_expired(self, expired: Expired) -> int:
        keys = [version_key(version) for version in expired.versions]
        keys += [moments_key(version) for version in expired.moments]
        num_bytes = 0
        for key in keys:
            with suppress(StoreError):  # the version is gone already; its files are the sweeper's then
                num_bytes += self._blobs.delete(key)
        return num_bytes

    def _oldest_turn_s(self) -> float:
        return self._clock() - self._limits.keep_turn_days * DAY_S

    def _old_conversations(self) -> list[tuple[str, str]]:
        query = select(TurnRow.user_id, TurnRow.root_id).group_by(TurnRow.user_id, TurnRow.root_id)
        query = query.having(func.max(TurnRow.created_s) < self._oldest_turn_s())
        with self._read() as session:
            return list(session.execute(query))


def kept_versions(versions: Iterable[Version], heads: set[int | None], now_s: float, limits: Limits) -> set[int]:
    """Return the numbers to keep: per base the newest, the last of each recent day (UTC); pinned, heads, their parents.

    A head's parent stays so that the last step can always be undone, and per base the newest that has passed a review
    so that there is a sound version to go back to.
    """
    kept: set[int] = set()
    for group in _by_base(versions):
        kept.update(version.number for version in group[: limits.keep_newest])
        recent = [version for version in group if version.created_s > now_s - limits.keep_daily_days * DAY_S]
        last_of_day = {int(version.created_s // DAY_S): version.number for version in reversed(recent)}
        kept.update(last_of_day.values())
        kept.update([version.number for version in group if version.review][:1])
        for version in group:
            if version.pinned or version.number in heads:
                kept.add(version.number)
            if version.number in heads and version.parent is not None:
                kept.add(version.parent)
    return kept


def kept_moments(versions: Iterable[Version], heads: set[int | None], limits: Limits) -> set[int]:
    """Return the numbers whose moments stay: the heads, and per base the newest few."""
    kept = {number for number in heads if number is not None}
    for group in _by_base(versions):
        kept.update(version.number for version in group[: limits.keep_moments])
    return kept


def _by_base(versions: Iterable[Version]) -> list[list[Version]]:
    """Return the versions of each base, newest first."""
    groups: dict[str, list[Version]] = defaultdict(list)
    for version in sorted(versions, key=lambda version: -version.number):
        groups[version.base_digest].append(version)
    return list(groups.values())
