"""Users, their versions and their updates, as an operator or the person asks for them; plain blocking calls."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from adapters_store import Store
from adapters_store.types import Update, User, Version
from personalize.errors import InvalidParameter, NotFound
from personalize.service.population import as_receipt
from personalize.service.validation import check_user, is_number
from personalize.types import ForgetReceipt, Outcome, UpdateInfo, UserId, UserInfo, VersionInfo
from personalize.updates.storage import translated

MAX_PAGE = 1_000
CONSENT_TEXT = "default"


def find_user(store: Store, name: str) -> User | None:
    """Return the user that an external id, or a ``UserId``, names; nobody reaches the population adapter's owner."""
    found = store.get_user(name) if isinstance(name, UserId) else store.find_user(name)
    return None if found is None or found.reserved else found


@dataclass(frozen=True, slots=True)
class Base:
    """The base model that heads are meant for, as far as managing adapters must know it.

    Attributes:
        modules: module name -> (d_in, d_out) of the layers that can carry an adapter; None where nobody can say.
        max_rank: highest rank that is served.
    """

    digest: str
    modules: Mapping[str, tuple[int, int]] | None
    max_rank: int


class People:
    """What can be asked about users and done for them; every call names one user.

    Args:
        base: the base whose heads are meant; None where none is known: what needs one is then refused.
        max_import_bytes: largest zip file, and largest file in it, that an import reads; a folder may be larger.
    """

    def __init__(self, store: Store, base: Base | None, max_import_bytes: int):
        self._store = store
        self._known_base = base
        self._max_import_bytes = max_import_bytes

    @property
    def _base(self) -> Base:
        if self._known_base is None:
            raise NotFound("no model has been opened in this home yet, so nobody has a version here", param="model")
        return self._known_base

    # --- looking ---------------------------------------------------------------------------------------------------

    def user_id(self, user: str) -> str:
        """Return the random id.

        Raises:
            NotFound: nobody of that name has been seen.
        """
        check_user(user)
        with translated():
            found = find_user(self._store, user) if user is not None else None
        if found is None:
            raise NotFound("no such user: nobody of that name has chatted here", param="user")
        return found.user_id

    def user(self, user: str) -> UserInfo:
        user_id = self.user_id(user)
        with translated():
            found = self._store.get_user(user_id)
            if found is None:
                raise NotFound("no such user", param="user")
            return self._user_info(found)

    def users(self, limit: int = 100, after: str | None = None) -> tuple[UserInfo, ...]:
        """Return a page of users, ordered by id.

        Args:
            after: the last ``user_id`` of the page before.
        """
        check_limit(limit)
        with translated():
            return tuple(self._user_info(user) for user in self._store.list_users(limit, after))

    def versions(self, user: str) -> tuple[VersionInfo, ...]:
        """Return all versions of the user, of every base."""
        user_id = self.user_id(user)
        with translated():
            heads: dict[str, int | None] = {}
            found: Sequence[Version] = self._store.versions(user_id)
            for digest in {version.base_digest for version in found}:
                head = self._store.head(user_id, digest)
                heads[digest] = head.number if head else None
        return tuple(_version_info(version, heads[version.base_digest]) for version in found)

    def updates(self, user: str, limit: int = 100) -> tuple[UpdateInfo, ...]:
        """Return the user's newest updates, the newest first."""
        check_limit(limit)
        user_id = self.user_id(user)
        with translated():
            return tuple(_update_info(update) for update in self._store.updates(user_id, limit))

    def update(self, update_id: str) -> UpdateInfo:
        with translated():
            return _update_info(self._store.update(update_id))

    def owner_of_update(self, update_id: str) -> UserId:
        """Return whose update it is, for access checks."""
        with translated():
            return UserId(self._store.update(update_id).user_id)

    # --- versions --------------------------------------------------------------------------------------------------

    def rollback(self, user: str, number: int) -> VersionInfo:
        """Make a version the head again; what waits to be learnt is cancelled."""
        _check_number(number)
        user_id = self.user_id(user)
        with translated():
            return _head_info(self._store.rollback(user_id, number))

    def undo(self, user: str) -> VersionInfo | None:
        """Go back to the head's parent; None when that is the base."""
        user_id = self.user_id(user)
        with translated():
            version = self._store.undo_last(user_id, self._base.digest)
        return None if version is None else _head_info(version)

    def reset(self, user: str) -> None:
        """Serve the base again and learn from there; versions stay."""
        user_id = self.user_id(user)
        with translated():
            self._store.reset(user_id, self._base.digest)

    def pin(self, user: str, number: int, pinned: bool = True) -> VersionInfo:
        """Keep a version for ever, or no longer."""
        _check_number(number)
        if not isinstance(pinned, bool):
            raise InvalidParameter("pinned", pinned, "True or False")
        user_id = self.user_id(user)
        with translated():
            self._store.pin(user_id, number, pinned)
            version = self._store.version(user_id, number)
            head = self._store.head(user_id, version.base_digest)
        return _version_info(version, head.number if head else None)

    # --- permission and data ---------------------------------------------------------------------------------------

    def set_learning(self, user: str, mode: str) -> UserInfo:
        user_id = self.user_id(user)
        with translated():
            self._store.set_learning(user_id, mode)  # type: ignore[arg-type]
        return self.user(UserId(user_id))

    def consent(self, user: str, granted: bool, text_version: str = CONSENT_TEXT, actor: str = "app") -> UserInfo:
        """Record the user's answer; who has never chatted may consent before."""
        if not isinstance(granted, bool):
            raise InvalidParameter("granted", granted, "True or False")
        user_id = self._seen(user)
        with translated():
            self._store.record_consent(user_id, granted, text_version, actor)
        return self.user(UserId(user_id))

    def export(self, user: str, path: Path) -> Path:
        """Write everything about the user into a zip file."""
        user_id = self.user_id(user)
        with translated():
            self._store.export_user(user_id, path)
        return path

    def export_version(self, user: str, number: int, path: Path) -> Path:
        """Write one version's PEFT folder into a zip file."""
        _check_number(number)
        user_id = self.user_id(user)
        with translated():
            self._store.export_version(user_id, number, path)
        return path

    def import_(self, user: str, source: Path) -> VersionInfo:
        """Make a PEFT folder, or a zip file of one, the user's new head; who has never chatted may bring one.

        Raises:
            AdapterError: the folder cannot be served on this base.
            StorageUnavailable: it cannot be written.
        """
        base = self._base
        user_id = self._seen(user)
        max_bytes = self._max_import_bytes if source.is_file() else None
        with translated():
            return _head_info(
                self._store.import_version(
                    user_id, source, base.digest, base.modules, max_rank=base.max_rank, max_bytes=max_bytes
                )
            )

    def stage(self, user: str) -> Path:
        """Return a new private folder of the user's, which ``discard`` ends; so do ``forget`` and the sweeper."""
        user_id = self.user_id(user)
        with translated():
            return self._store.stage(user_id)

    def discard(self, folder: Path) -> None:
        with translated():
            self._store.discard(folder)

    def forget(self, user: str) -> ForgetReceipt:
        user_id = self.user_id(user)
        with translated():
            receipt = self._store.forget(user_id)
        return as_receipt(receipt)

    def _seen(self, user: str) -> str:
        """The random id; a new external id becomes a user."""
        check_user(user)
        if user is None or isinstance(user, UserId):
            return self.user_id(user)
        with translated():
            return self._store.ensure_user(user).user_id

    def _user_info(self, user: User) -> UserInfo:
        head = self._store.head(user.user_id, self._known_base.digest) if self._known_base else None
        return UserInfo(
            user_id=user.user_id,
            created_s=user.created_s,
            learning=user.learning,
            consent=user.consent,
            head=head.number if head else None,
            num_turns=user.num_turns,
            num_updates=user.num_updates,
        )


def _head_info(version: Version) -> VersionInfo:
    return _version_info(version, version.number)


def _version_info(version: Version, head: int | None) -> VersionInfo:
    return VersionInfo(
        number=version.number,
        parent=version.parent,
        digest=version.digest,
        base_digest=version.base_digest,
        rank=version.rank,
        num_bytes=version.num_bytes,
        created_s=version.created_s,
        is_head=version.number == head,
        pinned=version.pinned,
        origin=version.origin,
        metrics=dict(version.metrics),
    )


def _update_info(update: Update) -> UpdateInfo:
    return UpdateInfo(
        update_id=update.update_id,
        request_id=update.request_id,
        turn_id=update.turn_id,
        outcome=Outcome(update.outcome),
        version=update.version,
        created_s=update.created_s,
        finished_s=update.finished_s,
        metrics=dict(update.metrics),
    )


def _check_number(number: object) -> None:
    if not is_number(number):
        raise InvalidParameter("version", number, "the number of one of the user's versions")


def check_limit(limit: object) -> None:
    """Refuse what cannot be the length of a page."""
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_PAGE:
        raise InvalidParameter("limit", limit, f"a whole number from 1 to {MAX_PAGE}")
