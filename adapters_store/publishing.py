"""Making a staged folder a version: files first, then one transaction that says it exists."""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from adapters_store.audit import append
from adapters_store.core import locked_user
from adapters_store.crash import crash_point
from adapters_store.errors import Erased, HeadMoved, InvalidValue, NotFound, QuotaExceeded, StoreError
from adapters_store.files import storage_errors, write_new
from adapters_store.folder import (
    MANIFEST,
    MOMENTS,
    check_fit,
    check_folder,
    check_moments,
    copy_folder,
    folder_digest,
    moments_digest,
)
from adapters_store.heads import check_head, swap_head
from adapters_store.ids import short_text
from adapters_store.retention import Expired, Retention
from adapters_store.schema import VersionRow
from adapters_store.types import RECOMPUTATION, Version
from adapters_store.updates import Updates, close_update, plain_metrics
from adapters_store.users import Users
from adapters_store.versions import moments_key, version_key
from adapters_store.zipped import unpack

MAX_STATE_BYTES = 16 * 2**10
ORIGINS = ("update", "import", "rebase", "population", RECOMPUTATION)


class Publishing(Users, Updates, Retention):
    def stage(self, user_id: str) -> Path:
        """Return an empty private folder for the user's next version; ``publish`` or ``discard`` ends it."""
        if self.get_user(user_id) is None:
            raise NotFound(f"no user {user_id!r}")
        return self._blobs.stage(user_id)

    def discard(self, path: Path) -> None:
        """Delete a staged folder; one that is gone already is no error."""
        self._blobs.discard(path)

    def publish(
        self,
        staged: Path,
        *,
        user_id: str,
        base_digest: str,
        parent: int | None,
        epoch: int,
        update_id: str | None,
        state: Mapping[str, Any],
        metrics: Mapping[str, float],
        origin: str = "update",
        beside: Callable[[Session, Version], None] | None = None,
        why: Mapping[str, Any] | None = None,
    ) -> Version:
        """Commit a staged PEFT folder as the user's next version and make it the head.

        The number is reserved first and never used again, whatever happens. Files are synced and in place before
        the one transaction that writes the version's row, marks the update applied and moves the head: only if the
        head is still ``parent``, the erasure epoch ``epoch`` and the update still claimed by this process. On any
        error the folder is removed again; a crash leaves an orphan for ``sweep``.

        Args:
            staged: holds ``adapter_config.json``, ``adapter_model.safetensors`` and, if there are moments,
                ``optimizer.safetensors``; it is consumed.
            state: what the recipe remembers: ids and numbers, at most 16 KiB as JSON.
            origin: one of ``ORIGINS``.
            beside: writes what belongs to the version, in the same transaction.
            why: single words and numbers for the audit line, which every version has that no update made.

        Raises:
            HeadMoved: somebody else moved the head; UpdateClosed: the update was cancelled or claimed elsewhere.
            Erased: the user was forgotten.
            AdapterInvalid: the folder is no servable adapter.
            StoreFull: no space, or the user's quota of versions is used up.
        """
        self._blobs.check_staged(staged)
        try:
            user = self.get_user(user_id)
            if user is None or user.epoch != epoch:
                raise Erased(f"user {user_id} was forgotten")
            plan = _Plan(user_id, base_digest, parent, epoch, plain_metrics(metrics), _checked_state(state), origin)
            draft = self._draft(staged, plan)
            self._store_files(staged, draft)
            expired = self._commit_version(draft, epoch, update_id, beside, why or {})
        finally:
            self.discard(staged)
        crash_point("publish.committed")
        self._delete_expired(expired)
        return draft

    def _draft(self, staged: Path, plan: "_Plan") -> Version:
        """Check the staged folder, reserve a number and return the version as it will be."""
        limit = self._limits.max_adapter_bytes
        info = check_folder(staged, max_bytes=limit)
        has_moments = (staged / MOMENTS).exists()
        if has_moments:
            check_moments(staged / MOMENTS, limit)
        with storage_errors():
            digest = folder_digest(staged)
            second = moments_digest(staged / MOMENTS) if has_moments else None
        number = self._write(lambda session: self._reserve(session, plan))
        crash_point("publish.reserved")
        return Version(
            user_id=plan.user_id,
            number=number,
            parent=plan.parent,
            digest=digest,
            base_digest=plan.base_digest,
            rank=info.rank,
            num_bytes=info.num_bytes,
            created_s=self._clock(),
            pinned=False,
            origin=plan.origin,
            metrics=plan.metrics,
            state=plan.state,
            moments_digest=second,
        )

    def _reserve(self, session: Session, plan: "_Plan") -> int:
        user = locked_user(session, plan.user_id, plan.epoch)
        check_head(session, plan.user_id, plan.base_digest, plan.parent)
        mine = select(func.count()).select_from(VersionRow).where(VersionRow.user_id == plan.user_id)
        held, allowed = session.scalar(mine) or 0, self._limits.max_versions_per_user
        if held >= allowed:
            raise QuotaExceeded(f"user {plan.user_id} has {held} versions; allowed: {allowed}")
        user.last_number += 1
        return user.last_number

    def _store_files(self, staged: Path, draft: Version) -> None:
        """Bring the folder, and the moments beside it, to their final places and read the folder back."""
        beside = self._blobs.stage(draft.user_id) if draft.moments_digest else None
        try:
            with storage_errors():
                for name in (MANIFEST, "README.md"):
                    (staged / name).unlink(missing_ok=True)
                write_new(staged / MANIFEST, _manifest(draft))
                if beside is not None:
                    (staged / MOMENTS).rename(beside / MOMENTS)
            crash_point("publish.staged")
            if beside is not None:
                self._blobs.commit(beside, moments_key(draft))
            crash_point("publish.moments_stored")
            self._blobs.commit(staged, version_key(draft))
            crash_point("publish.folder_stored")
            self.verify(draft)
        except BaseException:
            self._remove(draft)
            raise
        finally:
            if beside is not None:
                self.discard(beside)

    def _commit_version(
        self,
        draft: Version,
        epoch: int,
        update_id: str | None,
        beside: Callable[[Session, Version], None] | None,
        why: Mapping[str, Any],
    ) -> Expired:
        """Write everything that makes the version exist, in one transaction."""
        fence = self._claims.get(update_id) if update_id else None

        def work(session: Session) -> Expired:
            user = locked_user(session, draft.user_id, epoch)
            if update_id is not None:
                close_update(session, update_id, fence, "applied", self._clock(), draft.metrics, version=draft.number)
                user.num_updates += 1
            swap_head(session, draft.user_id, draft.base_digest, draft.parent, draft.number)
            session.add(
                VersionRow(**{column.key: getattr(draft, column.key) for column in VersionRow.__table__.columns})
            )
            if beside is not None:
                beside(session, draft)
            if draft.origin != "update":
                action, detail = f"version.{draft.origin}", {**why, "number": draft.number, "digest": draft.digest}
                append(session, self._clock(), "store", action, draft.user_id, detail)
            session.flush()
            crash_point("publish.in_transaction")
            return self._expire(session, draft.user_id)

        crash_point("publish.before_commit")
        try:
            expired = self._write(work)
        except (HeadMoved, Erased):
            self._remove(draft)
            raise  # any other failure may have come after the commit: what is an orphan then, the sweeper knows
        if update_id is not None:
            self._claims.pop(update_id, None)
        return expired

    def _remove(self, draft: Version) -> None:
        """Take the files of a version back that was not committed; what resists is left to the sweeper."""
        for key in (version_key(draft), moments_key(draft)):
            with suppress(StoreError):
                self._blobs.delete(key)

    def import_version(
        self,
        user_id: str,
        source: Path,
        base_digest: str,
        expected: Mapping[str, tuple[int, int]] | None = None,
        *,
        max_rank: int | None = None,
        max_bytes: int | None = None,
    ) -> Version:
        """Copy a PEFT folder from outside, check the copy, and publish it as the user's new head.

        Args:
            source: the folder, or a zip file of its files.
            expected: the base's modules as module name -> (d_in, d_out), if they are known.
            max_rank: highest rank that is served, if it is known.
            max_bytes: largest file that is read, if it is to be smaller than the store's own limit.

        Raises:
            AdapterCorrupt, AdapterMismatch: the folder is refused; nothing has changed.
        """
        limit = min(max_bytes or self._limits.max_adapter_bytes, self._limits.max_adapter_bytes)
        zipped = source.is_file()
        if not zipped:
            check_folder(source, max_bytes=limit)
        user = self.get_user(user_id)
        head = self.head(user_id, base_digest)
        staged = self.stage(user_id)
        try:
            with storage_errors():
                if zipped:
                    unpack(source, staged, limit)
                else:
                    copy_folder(source, staged, limit)
            check_fit(check_folder(staged, max_bytes=limit), expected, max_rank)
        except BaseException:
            self.discard(staged)
            raise
        return self.publish(
            staged,
            user_id=user_id,
            base_digest=base_digest,
            parent=head.number if head else None,
            epoch=user.epoch if user else 0,
            update_id=None,
            state={},
            metrics={},
            origin="import",
        )


@dataclass(frozen=True, slots=True)
class _Plan:
    """What the caller of ``publish`` asked for, checked."""

    user_id: str
    base_digest: str
    parent: int | None
    epoch: int
    metrics: dict[str, Any]
    state: dict[str, Any]
    origin: str

    def __post_init__(self):
        short_text("base_digest", self.base_digest, 64)
        if self.origin not in ORIGINS:
            raise InvalidValue("origin", self.origin, f"one of {ORIGINS}")


def _checked_state(state: Mapping[str, Any]) -> dict[str, Any]:
    try:
        text = json.dumps(dict(state), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidValue("state", state, "plain JSON values") from error
    if len(text) > MAX_STATE_BYTES:
        raise InvalidValue("state", f"{len(text)} bytes", f"up to {MAX_STATE_BYTES} bytes of ids and numbers")
    return json.loads(text)


def _manifest(draft: Version) -> bytes:
    """Return the manifest: what a reader of the bare folder can know, without the user."""
    fields = ("number", "parent", "digest", "base_digest", "rank", "created_s", "origin", "moments_digest", "state")
    value = {"format": 1, **{name: getattr(draft, name) for name in fields}}
    return json.dumps(value, indent=1, sort_keys=True).encode()
