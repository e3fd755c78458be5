"""The base models that were opened on this store: what managing adapters must know while no model is loaded."""

import hashlib
import json
from collections.abc import Mapping

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from adapters_store.core import Core
from adapters_store.errors import InvalidValue, NotFound
from adapters_store.ids import HEX64
from adapters_store.schema import MetaRow

LATEST = "base"
Modules = Mapping[str, tuple[int, int]]
"""Module name -> (d_in, d_out)."""


class Bases(Core):
    """A base is known by its digest, for ever; a name means the base that was opened under it last.

    Names are kept as hashes: they may be paths.
    """

    def record_base(self, name: str, digest: str, modules: Modules | None = None) -> None:
        """Remember that the base with this digest was opened as ``name``, and is the latest one.

        Args:
            digest: 64 hex digits.
            modules: the layers that can carry an adapter; None where nobody can say.
        """
        if not HEX64.fullmatch(digest):
            raise InvalidValue("digest", digest, "64 lower-case hex digits")
        if modules is not None and self.base_modules(digest) != dict(modules):
            self._blobs.delete(_key(digest))  # there is one only if it was damaged: a digest stands for its modules
            self._blobs.write(_key(digest), json.dumps(dict(modules), sort_keys=True).encode())
        for row in (LATEST, _row_of(name)):
            if self._meta(row) != digest:
                self._set_meta(row, digest)

    def base_digest(self, name: str | None = None) -> str | None:
        """Return the digest of the base that was opened last, with ``name`` last under that name; None for never."""
        return self._meta(LATEST if name is None else _row_of(name))

    def base_modules(self, digest: str) -> dict[str, tuple[int, int]] | None:
        """Return what was recorded of a base's modules; None if nothing was, or it is damaged."""
        try:
            value = json.loads(self._blobs.read(_key(digest)))
            return {str(name): (int(d_in), int(d_out)) for name, (d_in, d_out) in value.items()}
        except (NotFound, ValueError, TypeError, AttributeError):
            return None

    def _meta(self, row: str) -> str | None:
        with self._read() as session:
            return session.scalars(select(MetaRow.text).where(MetaRow.name == row)).one_or_none()

    def _set_meta(self, row: str, text: str) -> None:
        def work(session: Session) -> None:
            session.merge(MetaRow(name=row, text=text))

        try:
            self._write(work)
        except IntegrityError:  # another process made the very first row in the same moment
            self._write(work)


def _row_of(name: str) -> str:
    return f"{LATEST}:{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"


def _key(digest: str) -> str:
    return f"bases/{digest}.json"
