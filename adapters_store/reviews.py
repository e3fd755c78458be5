"""What is found of a version after it was published, and the way back to the last one that passed."""

from collections.abc import Iterator, Mapping, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from adapters_store.core import locked_user
from adapters_store.heads import Heads
from adapters_store.ids import short_text
from adapters_store.leases import Leases
from adapters_store.schema import HeadRow, UpdateRow, VersionRow
from adapters_store.types import REVIEW_PASSED, Version
from adapters_store.updates import plain_metrics
from adapters_store.versions import as_version, version_row


class Reviews(Heads, Leases):
    """A review is a verdict on a committed version. It is kept as numbers in the version's and its update's metrics."""

    def due_review(self, user_id: str, base_digest: str, every: int) -> Version | None:
        """Return the user's head where it is time to review it, else None.

        It is time when its number is ``every`` above the last reviewed version that it was made from (or above 0), and
        at once when that one did not pass.
        """
        head = self.head(user_id, base_digest)
        if head is None or head.review is not None:
            return None
        before = lineage(head, self.versions(user_id, base_digest))
        last = next((version for version in before if version.review is not None), None)
        if last is not None and not last.review:
            return head
        return head if head.number - (last.number if last else 0) >= every else None

    def record_review(
        self, owner: str, user_id: str, number: int, breach: str | None, metrics: Mapping[str, float]
    ) -> int | None:
        """Write down what a review found; where it names a breach, take the version out of service.

        Semantics: one transaction. While the version is still the head, a breach moves the head to the nearest version
        that it was made from and that has passed a review, or to the base model where there is none, as ``rollback``
        does; the audit line names the breach. A head that has moved on by itself is left alone.

        Args:
            owner: who holds the learning lease; nobody else may judge.
            breach: one word for what was wrong; None where the version passed.
            metrics: what was measured.

        Returns:
            The number of the head afterwards; None is the base model.

        Raises:
            LeaseLost: ``owner`` does not hold the learning lease.
            NotFound: no such user or version.
        """
        if breach is not None:
            short_text("breach", breach, 64)
        found = plain_metrics({**metrics, REVIEW_PASSED: float(breach is None)})

        def work(session: Session) -> int | None:
            self._held_fence(session, owner)
            locked_user(session, user_id)
            row = version_row(session, user_id, number)
            row.metrics = {**row.metrics, **found}
            made = select(UpdateRow).where(UpdateRow.user_id == user_id, UpdateRow.version == number)
            for update in session.scalars(made):
                update.metrics = {**update.metrics, **found}
            head = session.get(HeadRow, (user_id, row.base_digest))
            if breach is None or head is None or head.number != number:
                return head.number if head else None
            target = self._last_passed(session, row)
            detail = {"reason": breach}
            self._move(session, user_id, row.base_digest, target, "version.rollback", actor="review", **detail)
            return target

        return self._write(work)

    def _last_passed(self, session: Session, broken: VersionRow) -> int | None:
        mine = (VersionRow.user_id == broken.user_id, VersionRow.base_digest == broken.base_digest)
        rows = session.scalars(select(VersionRow).where(*mine).order_by(VersionRow.number.desc()))
        before = lineage(as_version(broken), [as_version(row) for row in rows])
        return next((version.number for version in before if version.review), None)


def lineage(version: Version, versions: Sequence[Version]) -> Iterator[Version]:
    """Yield the versions that ``version`` was made from, the nearest first.

    Args:
        versions: the user's for one base, newest first. Where retention has taken one out of the line, the next older
            one of them stands for it.
    """
    parent = version.trained_from
    while parent is not None:
        before = next((one for one in versions if one.number <= parent), None)
        if before is None:
            return
        yield before
        parent = before.trained_from
