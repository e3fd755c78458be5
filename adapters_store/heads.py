"""Moving a head: rollback, undo, reset, and the compare-and-set of a publish."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from adapters_store.audit import append
from adapters_store.changes import count_change
from adapters_store.core import locked_user
from adapters_store.errors import HeadMoved, NotFound
from adapters_store.ids import short_text
from adapters_store.schema import HeadRow, UpdateRow, VersionRow
from adapters_store.types import BEGAN_WITH, Version
from adapters_store.versions import Versions, as_version, version_row


class Heads(Versions):
    """Every move also cancels the user's waiting and running updates: they would build on what was taken back."""

    def rollback(self, user_id: str, number: int) -> Version:
        """Make an existing version the head of its base again; later versions stay and can be rolled back to."""

        def work(session: Session) -> Version:
            locked_user(session, user_id)
            version = as_version(version_row(session, user_id, number))
            self._move(session, user_id, version.base_digest, number, "version.rollback")
            return version

        return self._write(work)

    def undo_last(self, user_id: str, base_digest: str) -> Version | None:
        """Make the head's parent the head; return it, None where there is none.

        Without a parent the line began at the base model, which serves again, or with the population adapter: then the
        user has not begun again, and is served as everybody is who has not.

        Raises:
            NotFound: there is no head to undo, or its parent was removed by retention.
        """

        def work(session: Session) -> Version | None:
            locked_user(session, user_id)
            head = session.get(HeadRow, (user_id, base_digest))
            if head is None or head.number is None:
                raise NotFound("this user has no version to undo on this base")
            row = version_row(session, user_id, head.number)
            return self._go_back(session, row, row.parent)

        return self._write(work)

    def undo_to(self, user_id: str, base_digest: str, head: int, number: int | None, **why: str) -> Version | None:
        """Make version ``number`` the head in place of ``head``; None is the beginning, as in ``undo_last``.

        Args:
            why: single words for the audit line.

        Raises:
            HeadMoved: the head is not ``head`` any more.
            NotFound: no such user or version.
        """

        def work(session: Session) -> Version | None:
            locked_user(session, user_id)
            check_head(session, user_id, base_digest, head)
            return self._go_back(session, version_row(session, user_id, head), number, **why)

        return self._write(work)

    def _go_back(self, session: Session, row: VersionRow, number: int | None, **why: str) -> Version | None:
        """Put version ``number``, or what served before there was any, in the place of the head ``row``."""
        version = None if number is None else as_version(version_row(session, row.user_id, number))
        self._move(session, row.user_id, row.base_digest, number, "version.undo", **why)
        if number is None and BEGAN_WITH in row.metrics:
            session.delete(session.get_one(HeadRow, (row.user_id, row.base_digest)))
        return version

    def reset(self, user_id: str, base_digest: str) -> None:
        """Serve the user with the base model again and begin anew from there; no version is deleted."""
        short_text("base_digest", base_digest, 64)

        def work(session: Session) -> None:
            locked_user(session, user_id)
            self._move(session, user_id, base_digest, None, "version.reset")

        self._write(work)

    def _move(
        self,
        session: Session,
        user_id: str,
        base_digest: str,
        number: int | None,
        action: str,
        *,
        actor: str = "store",
        **why: str,
    ) -> None:
        head = session.get(HeadRow, (user_id, base_digest))
        before = head.number if head else None
        session.merge(HeadRow(user_id=user_id, base_digest=base_digest, number=number))
        cancel_updates(session, user_id, "cancelled_rollback", self._clock())
        count_change(session, user_id)
        detail: Mapping[str, Any] = {"before": before, "after": number, "base": base_digest[:16], **why}
        append(session, self._clock(), actor, action, user_id, detail)


def swap_head(session: Session, user_id: str, base_digest: str, parent: int | None, number: int) -> None:
    """Move the head from ``parent`` to ``number``, or not at all.

    Raises:
        HeadMoved: the head is not ``parent`` any more.
    """
    query = update(HeadRow).where(HeadRow.user_id == user_id, HeadRow.base_digest == base_digest)
    query = query.where(HeadRow.number.is_not_distinct_from(parent)).values(number=number)
    if session.execute(query).rowcount != 1:  # pyright: ignore[reportAttributeAccessIssue]
        if parent is not None:
            raise HeadMoved(f"the head of user {user_id} is not version {parent} any more")
        try:
            session.add(HeadRow(user_id=user_id, base_digest=base_digest, number=number))
            session.flush()
        except IntegrityError as error:
            raise HeadMoved(f"user {user_id} has got a first version meanwhile") from error
    count_change(session, user_id)


def check_head(session: Session, user_id: str, base_digest: str, parent: int | None) -> None:
    """Raise HeadMoved if the head is not ``parent``; the early, cheap form of the compare-and-set."""
    query = select(HeadRow.number).where(HeadRow.user_id == user_id, HeadRow.base_digest == base_digest)
    if session.scalars(query).one_or_none() != parent:
        raise HeadMoved(f"the head of user {user_id} is not version {parent} any more")


def cancel_updates(session: Session, user_id: str, outcome: str, now_s: float) -> None:
    """Give every waiting and running update of the user a final outcome."""
    query = update(UpdateRow).where(UpdateRow.user_id == user_id, UpdateRow.outcome == "queued")
    session.execute(query.values(outcome=outcome, finished_s=now_s, fence=None))
