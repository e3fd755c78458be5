"""The learning lease: which process may train."""

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from adapters_store.core import Core
from adapters_store.errors import InvalidValue, LeaseLost
from adapters_store.ids import short_text
from adapters_store.schema import LeaseRow

LEARNING = "learning"
MAX_TTL_S = 86_400


class Leases(Core):
    """A lease belongs to one open store of one process; a restarted process is another holder, whatever its name.

    The lease saves work; correctness rests on the compare-and-set of a publish and on the fence, which grows when
    somebody else takes the lease and which a publish compares too. An expiry further ahead than a lease may last comes
    of a wrong clock, and counts as past.
    """

    _able_since: tuple[int, float] | None = None  # fence of the lease, and when its holder could first train under it

    def acquire_lease(self, owner: str, ttl_s: float) -> bool:
        """Take or renew the lease for ``ttl_s`` seconds; return whether this process holds it now."""
        short_text("owner", owner, 100)
        if not 0 < ttl_s <= MAX_TTL_S:
            raise InvalidValue("ttl_s", ttl_s, f"above 0, at most {MAX_TTL_S}")
        try:
            return self._write(lambda session: self._acquire(session, owner, ttl_s))
        except IntegrityError:  # another process made the very first lease in the same moment
            return False

    def _acquire(self, session: Session, owner: str, ttl_s: float) -> bool:
        now = self._clock()
        row = session.get(LeaseRow, LEARNING, with_for_update=True)
        if row is None:
            row = LeaseRow(name=LEARNING, owner=owner, instance=self._instance, fence=1, expires_s=now + ttl_s)
            session.add(row)
            return True
        runs = _runs(row, now)
        if row.instance != self._instance:
            if runs:
                return False
            row.fence += 1
            row.instance = self._instance
        elif not runs:
            self._able_since = None  # nobody could train since it lapsed; nobody else took it, so the fence stays
        row.owner, row.expires_s = owner, now + ttl_s
        return True

    def release_lease(self, owner: str) -> None:
        """Let the lease go, if this process holds it under that name."""

        def work(session):
            row = session.get(LeaseRow, LEARNING, with_for_update=True)
            if row is not None and row.instance == self._instance and row.owner == owner:
                row.expires_s = self._clock()

        self._write(work)

    def lease_holder(self) -> str | None:
        """Return the name under which the lease is held now; None if nobody holds it."""
        with self._read() as session:
            row = session.get(LeaseRow, LEARNING)
            return row.owner if row is not None and _runs(row, self._clock()) else None

    def _held_fence(self, session: Session, owner: str) -> int:
        """Return the fence of the lease that ``owner`` holds in this process; LeaseLost if he does not."""
        row = session.get(LeaseRow, LEARNING, with_for_update=True)
        held = row is not None and row.instance == self._instance and row.owner == owner
        if row is None or not held or not _runs(row, self._clock()):
            raise LeaseLost(f"{owner!r} does not hold the learning lease")
        return row.fence


def _runs(row: LeaseRow, now_s: float) -> bool:
    return now_s < row.expires_s <= now_s + MAX_TTL_S
