"""Users, versions and the audit log of a store, managed while no model is loaded."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters_store import Store
from personalize.config import Settings
from personalize.errors import Conflict, NotFound
from personalize.service.people import Base, People, check_limit
from personalize.service.population import Population
from personalize.types import VersionInfo
from personalize.updates.storage import base_name, open_store, translated


@dataclass(frozen=True, slots=True)
class AuditLine:
    """Who did what to which object; ``digest`` covers the line and the digest before it."""

    number: int
    created_s: float
    actor: str
    action: str
    object_id: str
    detail: Mapping[str, Any]
    digest: str


@dataclass(frozen=True, slots=True)
class Pruned:
    """What retention and the sweeping of orphans have removed: counts only."""

    num_versions: int
    num_moments: int
    num_turns: int
    num_orphans: int
    num_bytes: int


class Administration(People):
    """What an operator does to a store; plain blocking calls.

    The store knows the bases that were opened on it, so heads, ``undo``, ``reset`` and the checks of an import need no
    model. Processes that serve from the same store see every change at their next request.
    """

    @classmethod
    @contextlib.contextmanager
    def open(cls, settings: Settings, model: str | None = None) -> Iterator["Administration"]:
        """Open the store of ``settings`` for as long as the context lasts.

        Args:
            model: whose heads are meant; None: those of the model that was opened on this store last.

        Raises:
            NotFound: that model was never opened on this store.
            StorageUnavailable: the store cannot be opened, or newer code wrote it.
        """
        store = open_store(settings)
        try:
            yield cls(store, _base(store, settings, model), settings.service.max_import_bytes)
        finally:
            store.close()

    def import_(self, user: str, source: Path) -> VersionInfo:
        """Make a PEFT folder, or a zip file of one, the user's new head; see ``People.import_``.

        Raises:
            NotFound: nobody has written down what the base's layers are, so nothing can be checked against them.
        """
        if self._base.modules is None:
            raise NotFound("the layers of this base are not known here; open the model once", param="model")
        return super().import_(user, source)

    @property
    def population(self) -> Population:
        """The population adapter's manifests, and their removal."""
        return Population(self._store)

    def prune(self) -> Pruned:
        """Remove what retention no longer keeps, and orphan files; a serving process does it by itself."""
        with translated():
            old, orphans = self._store.prune(), self._store.sweep()
        num_bytes = old.num_bytes + orphans.num_bytes
        return Pruned(old.num_versions, old.num_moments, old.num_turns, orphans.num_removed, num_bytes)

    def audit(self, limit: int = 100) -> tuple[AuditLine, ...]:
        """Return the newest lines of the audit log, the newest first."""
        check_limit(limit)
        with translated():
            lines = self._store.audit_log(limit)
        return tuple(
            AuditLine(one.number, one.created_s, one.actor, one.action, one.object_id, dict(one.detail), one.digest)
            for one in lines
        )

    def check_audit(self) -> None:
        """Follow the digests of all lines.

        Raises:
            Conflict: a line was changed, or is missing.
        """
        with translated():
            intact = self._store.audit_intact()
        if not intact:
            raise Conflict("the audit log was changed: a line's digest does not follow from the line before it")


def _base(store: Store, settings: Settings, model: str | None) -> Base | None:
    with translated():
        digest = store.base_digest(None if model is None else base_name(settings))
        if digest is None and model is not None:
            raise NotFound(f"the model {model!r} was never opened on this store", param="model")
        if digest is None:
            return None
        return Base(digest, store.base_modules(digest), settings.engine.max_lora_rank)
