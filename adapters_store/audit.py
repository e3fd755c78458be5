"""The audit log: who did what to which object. Append-only, hash-chained, without content."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from adapters_store.core import Core
from adapters_store.errors import InvalidValue
from adapters_store.ids import short_text, tagged
from adapters_store.schema import AuditRow, MetaRow
from adapters_store.types import AuditEntry

ACTION = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)*")
WORD = re.compile(r"[A-Za-z0-9_.:@\-]{0,100}")
FIRST = "0" * 64


class Audit(Core):
    def audit(self, actor: str, action: str, object_id: str, detail: Mapping[str, Any] | None = None) -> None:
        """Append one line.

        Args:
            actor: key id or the name of a part of the program; no external id.
            action: dotted lower-case words, such as "version.rollback".
            object_id: id of what it was done to.
            detail: numbers, flags and single words of at most 100 characters; anything longer could be content.
        """
        self._write(lambda session: append(session, self._clock(), actor, action, object_id, detail or {}))

    def audit_log(self, limit: int = 100) -> list[AuditEntry]:
        """Return the newest lines, newest first."""
        with self._read() as session:
            rows = session.scalars(select(AuditRow).order_by(AuditRow.number.desc()).limit(limit))
            return [_entry(row) for row in rows]

    def audit_intact(self) -> bool:
        """Return whether every line's digest still follows from the line and the digest before it."""
        before, number = FIRST, 0
        while page := self._page(number):
            for row in page:
                number += 1
                if row.number != number or row.digest != _digest(before, _entry(row)):
                    return False
                before = row.digest
        return True

    def _page(self, after: int) -> list[AuditRow]:
        query = select(AuditRow).where(AuditRow.number > after).order_by(AuditRow.number).limit(1000)
        with self._read() as session:
            return list(session.scalars(query))


def append(
    session: Session, now_s: float, actor: str, action: str, object_id: str, detail: Mapping[str, Any] | None = None
) -> None:
    """Append one line in this transaction; the counter's row keeps two processes from writing the same number."""
    detail = _checked_detail(detail or {})
    if not ACTION.fullmatch(action):
        raise InvalidValue("action", action, "dotted lower-case words")
    short_text("actor", actor, 100)
    short_text("object_id", object_id, 100)
    session.execute(update(MetaRow).where(MetaRow.name == "audit").values(number=MetaRow.number + 1))
    number = session.scalars(select(MetaRow.number).where(MetaRow.name == "audit")).one()
    before = session.scalars(select(AuditRow.digest).where(AuditRow.number == number - 1)).one_or_none() or FIRST
    entry = AuditEntry(number, now_s, actor, action, object_id, detail, "")
    session.add(
        AuditRow(
            number=number,
            created_s=now_s,
            actor=actor,
            action=action,
            object_id=object_id,
            detail=dict(detail),
            digest=_digest(before, entry),
        )
    )
    session.flush()


def _checked_detail(detail: Mapping[str, Any]) -> Mapping[str, Any]:
    for name, value in detail.items():
        plain = value is None or isinstance(value, bool | int | float)
        if not plain and not (isinstance(value, str) and WORD.fullmatch(value)):
            raise InvalidValue(f"detail[{name!r}]", value, "a number, a flag, or one word of up to 100 characters")
    return detail


def _digest(before: str, entry: AuditEntry) -> str:
    detail = json.dumps(dict(entry.detail), sort_keys=True, separators=(",", ":"))
    fields = (before, str(entry.number), repr(entry.created_s), entry.actor, entry.action, entry.object_id, detail)
    return hashlib.sha256(tagged("audit/1", (field.encode() for field in fields))).hexdigest()


def _entry(row: AuditRow) -> AuditEntry:
    return AuditEntry(row.number, row.created_s, row.actor, row.action, row.object_id, row.detail, row.digest)
