"""The log of moved heads: what a process needs to keep what it knows of heads up to date.

Every move of a head takes the next number of the change counter and leaves a row that says whose head it was. The
counter's row stays locked until the commit, so numbers become visible in their order and without gaps; a gap in what
is read means that rows were pruned, or that code which writes none has moved a head.
"""

from dataclasses import dataclass

from sqlalchemy import bindparam, delete, insert, select, update
from sqlalchemy.orm import Session

from adapters_store.core import Core
from adapters_store.schema import HeadMoveRow, MetaRow

KEPT_MOVES = 4096
PRUNE_EVERY = 256
POPULATION = "population"

_META, _MOVES = MetaRow.__table__, HeadMoveRow.__table__
_COUNTER = select(_META.c.number).where(_META.c.name == "changes")
_OTHER = _META.alias()
_OWNER = select(_OTHER.c.text).where(_OTHER.c.name == POPULATION).scalar_subquery()
# Tables, not mapped classes: this is asked before every reply, and a session costs five times as much as the query.
_SINCE = (
    select(_META.c.number, _MOVES.c.number, _MOVES.c.user_id, _OWNER)
    .outerjoin(_MOVES, _MOVES.c.number > bindparam("since"))
    .where(_META.c.name == "changes")
    .order_by(_MOVES.c.number)
)


@dataclass(frozen=True, slots=True)
class HeadMoves:
    """What has happened to heads since some number of the change counter.

    Attributes:
        number: where the counter stands now.
        user_ids: whose heads have moved; None where that is not known any more, or where it concerns everybody who
            has not begun, as a move of the population adapter's head does.
    """

    number: int
    user_ids: frozenset[str] | None


class Changes(Core):
    def change_counter(self) -> int:
        """Return a number that grows with every move of any head, in any process."""
        with self._connect() as connection:
            return connection.execute(_COUNTER).scalar_one()

    def heads_moved_since(self, number: int) -> HeadMoves:
        """Return whose heads have moved after the change counter stood at ``number``, in one indexed query.

        Semantics: a head that is read after this call is at least as new as ``HeadMoves.number`` says.
        """
        with self._connect() as connection:
            rows = connection.execute(_SINCE, {"since": number}).all()
        now, _, _, owner = rows[0]
        if now == number:
            return HeadMoves(now, frozenset())
        if [move for _, move, _, _ in rows] != list(range(number + 1, now + 1)):
            return HeadMoves(now, None)
        user_ids = frozenset(user_id for _, _, user_id, _ in rows)
        return HeadMoves(now, None if owner in user_ids else user_ids)


def count_change(session: Session, user_id: str) -> None:
    """Tell every process that a head of this user has moved."""
    session.execute(update(MetaRow).where(MetaRow.name == "changes").values(number=MetaRow.number + 1))
    number = session.execute(_COUNTER).scalar_one()
    session.execute(insert(HeadMoveRow).values(number=number, user_id=user_id))
    if number % PRUNE_EVERY == 0:
        session.execute(delete(HeadMoveRow).where(HeadMoveRow.number <= number - KEPT_MOVES))
