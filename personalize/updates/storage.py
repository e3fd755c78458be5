"""The store as the rest of the SDK meets it: opened from settings, its errors in the SDK's own words."""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

from adapters_store import LocalBlobs, Store
from adapters_store import errors as stored
from adapters_store.folder import folder_digest
from adapters_store.types import Version
from personalize import errors
from personalize.config import Settings
from personalize.types import AdapterRef

log = logging.getLogger(__name__)

# The first class that fits counts, so a special error stands before the general one.
_WORDS: tuple[tuple[type[stored.StoreError], type[errors.PersonalizeError]], ...] = (
    (stored.NotFound, errors.NotFound),
    (stored.Erased, errors.NotFound),
    (stored.InvalidValue, errors.InvalidRequest),
    (stored.HeadMoved, errors.Conflict),
    (stored.LeaseLost, errors.Conflict),
    (stored.AdapterMismatch, errors.AdapterMismatch),
    (stored.AdapterInvalid, errors.AdapterCorrupt),
    (stored.StoreError, errors.StorageUnavailable),
)


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Raise errors of the store as errors of the SDK."""
    try:
        yield
    except stored.StoreError as error:
        raise next(ours for theirs, ours in _WORDS if isinstance(error, theirs))(str(error)) from error


def open_store(settings: Settings) -> Store:
    """Open the store in ``settings.home``; make it if there is none.

    Raises:
        StorageUnavailable: it cannot be opened, or newer code wrote it.
    """
    with translated():
        try:
            settings.home.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise errors.StorageUnavailable(f"{settings.home} cannot be made: {error}") from error
        return Store.open(settings.url, LocalBlobs(settings.home))


def base_name(settings: Settings) -> str:
    """Return the name under which the store remembers the base of ``settings``; a local folder is its full path."""
    if settings.backend == "echo":
        return "echo"
    folder = Path(settings.model)
    return str(folder.resolve()) if folder.is_dir() else settings.model


def remember_base(store: Store, settings: Settings, digest: str, modules: Mapping[str, tuple[int, int]] | None) -> None:
    """Write down which base was opened, for those who manage the store without a model.

    A store that cannot be written now must not keep anybody from being served: it is only logged.
    """
    try:
        store.record_base(base_name(settings), digest, modules)
    except stored.StoreError as error:
        log.warning("the opened base could not be written down: %s", error.code)


def unpublished(user_id: str, number: int, folder: Path) -> AdapterRef:
    """Name a staged folder by what it holds, as its version would be; it reads the folder, so it blocks.

    Only a learner reads it: an engine knows published versions.
    """
    return AdapterRef(f"u_{user_id}@{number}-{folder_digest(folder)[:16]}", str(folder))


def reference(store: Store, version: Version | None) -> AdapterRef | None:
    """Return what an engine loads; None stands for the base."""
    return None if version is None else AdapterRef(version.name, str(store.path(version)))
