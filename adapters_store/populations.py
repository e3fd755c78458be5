"""The population adapter: who owns it, what its versions were made from, and whom they concern."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from adapters_store.audit import append
from adapters_store.changes import POPULATION, count_change
from adapters_store.core import locked_user
from adapters_store.errors import Erased, InvalidValue, NotFound
from adapters_store.publishing import Publishing
from adapters_store.retention import Expired
from adapters_store.schema import HeadRow, MetaRow, PopulationPersonRow, PopulationRow, UserRow, VersionRow
from adapters_store.sources import LogPerson, LogSource, Population, PopulationUse
from adapters_store.types import BEGAN_WITH, User, Version
from adapters_store.users import new_row
from adapters_store.versions import as_version

MAX_SOURCES = 64
MAX_ROWS = 500


class Populations(Publishing):
    """Versions of an owner who is nobody, each with a manifest of the logs that it was made from.

    The owner is a user without an external id, so no name reaches it. A manifest is written in the transaction that
    makes its version exist, and outlives it; what it says of people are the hashes under which ``users`` knows them.
    """

    def ensure_population_owner(self) -> User:
        """Return the owner, who is made at the first call."""
        if (owner := self._population_owner()) is None:
            with suppress(IntegrityError):  # another process was first
                self._write(lambda session: _make_owner(session, self._clock()))
            owner = self._population_owner()
        found = self.get_user(owner) if owner else None
        if found is None:
            raise NotFound("the owner of the population adapter is gone")
        return found

    def person(self, external_id: str) -> str:
        """Return the hash that stands for an external id in a manifest."""
        return self._external_hash(external_id)

    def publish_population(
        self,
        staged: Path,
        *,
        base_digest: str,
        parent: int | None,
        sources: Sequence[LogSource],
        people: Collection[LogPerson],
        metrics: Mapping[str, float],
    ) -> Version:
        """Commit a staged folder as the population adapter's next version and head, with its manifest; see ``publish``.

        Args:
            parent: the head when the work began.
            sources: at most ``MAX_SOURCES``; they also stand in the folder's own manifest.

        Raises:
            HeadMoved: another version was published meanwhile.
            Erased: one of the people who were users was forgotten meanwhile.
        """
        if not 0 < len(sources) <= MAX_SOURCES:
            raise InvalidValue("sources", len(sources), f"1 to {MAX_SOURCES} logs")
        owner = self.ensure_population_owner()
        return self.publish(
            staged,
            user_id=owner.user_id,
            base_digest=base_digest,
            parent=parent,
            epoch=owner.epoch,
            update_id=None,
            state={"sources": [asdict(source) for source in sources]},
            metrics=metrics,
            origin="population",
            beside=_manifest(sources, people),
        )

    def population_head(self, base_digest: str) -> Version | None:
        """Return the version that serves who has not begun on any base."""
        owner = self._population_owner()
        return None if owner is None else self.head(owner, base_digest)

    def population_version(self, number: int) -> Version:
        if (owner := self._population_owner()) is None:
            raise NotFound("there is no population adapter")
        return self.version(owner, number)

    def population_for(self, user_id: str, base_digest: str) -> Version | None:
        """Return what a user begins with: the population adapter's head for who has never had a head, on any base.

        Who was reset has a head, which says that he begins with the base.
        """
        begun = select(HeadRow.user_id).where(HeadRow.user_id == user_id).limit(1)
        with self._read() as session:
            if session.scalars(begun).first() is not None:
                return None
        return self.population_head(base_digest)

    def populations(self) -> list[Population]:
        """Return every version that ever was, the newest first."""
        with self._read() as session:
            rows = session.scalars(select(PopulationRow).order_by(PopulationRow.number.desc())).all()
            owner = _owner(session)
            kept = set(session.scalars(select(VersionRow.number).where(VersionRow.user_id == owner)))
            heads = set(session.scalars(select(HeadRow.number).where(HeadRow.user_id == owner)))
        return [_population(row, row.number in heads, row.number in kept) for row in rows]

    def population_uses(self, person: str, user_id: str | None = None) -> tuple[PopulationUse, ...]:
        """Return the versions that hold conversations of a person, or that the user's own versions began with."""
        with self._read() as session:
            return uses_of(session, person, user_id)

    def remove_populations(self, numbers: Collection[int] | None = None) -> list[Version]:
        """Delete versions of the population adapter, weights and all; None: every one. The manifests stay.

        Users' own versions that began with one are theirs and stay too. Where a head is deleted, who has not begun is
        served by the base again.

        Raises:
            NotFound: there is no such version (any more); nothing was deleted.
        """
        gone = self._write(lambda session: self._remove_versions(session, numbers))
        self._delete_expired(Expired(tuple(gone)))
        return gone

    def _remove_versions(self, session: Session, numbers: Collection[int] | None) -> list[Version]:
        owner = _owner(session)
        rows = list(session.scalars(select(VersionRow).where(VersionRow.user_id == owner)))
        known = {row.number for row in rows}
        if missing := sorted(set(known if numbers is None else numbers) - known):
            raise NotFound(f"the population adapter has no version {missing[0]!r}")
        if owner is None:
            return []
        locked_user(session, owner)
        gone = [row for row in rows if numbers is None or row.number in numbers]
        versions = [as_version(row) for row in gone]
        for row in gone:
            mine = (HeadRow.user_id == owner, HeadRow.number == row.number)
            session.execute(delete(HeadRow).where(*mine))
            session.delete(row)
            append(session, self._clock(), "store", "population.remove", owner, {"number": row.number})
        count_change(session, owner)
        return versions

    def _population_owner(self) -> str | None:
        with self._read() as session:
            return _owner(session)


def uses_of(session: Session, person: str | None, user_id: str | None) -> tuple[PopulationUse, ...]:
    """Return how versions of the population adapter concern a person, the oldest version first."""
    named: dict[int, list[PopulationPersonRow]] = {}
    if person is not None:
        for row in session.scalars(select(PopulationPersonRow).where(PopulationPersonRow.person == person)):
            named.setdefault(row.number, []).append(row)
    metrics = session.scalars(select(VersionRow.metrics).where(VersionRow.user_id == user_id)) if user_id else ()
    begun = {int(one[BEGAN_WITH]) for one in metrics if BEGAN_WITH in one}
    uses = []
    for number in sorted(named.keys() | begun):
        if (row := session.get(PopulationRow, number)) is not None:
            uses.append(_use(row, named.get(number, []), number in begun))
    return tuple(uses)


def leave(session: Session, now_s: float, person: str | None, user_id: str) -> tuple[PopulationUse, ...]:
    """Take a person who is forgotten out of all manifests, in this transaction; return what concerned the person.

    The weights stay as they are: making them anew takes the logs, which only the operator has. The audit log keeps
    which versions that is about, in case nobody gets to see the receipt.
    """
    uses = uses_of(session, person, user_id)
    held = [use.number for use in uses if use.in_sources]
    session.execute(delete(PopulationPersonRow).where(PopulationPersonRow.person == person))
    counted = update(PopulationRow).where(PopulationRow.number.in_(held))
    session.execute(counted.values(num_forgotten=PopulationRow.num_forgotten + 1))
    for use in uses:
        detail = {"number": use.number, "in_sources": bool(use.in_sources), "in_line": use.in_line}
        append(session, now_s, "store", "population.concerned", user_id, detail)
    return uses


def _manifest(sources: Sequence[LogSource], people: Collection[LogPerson]) -> Callable[[Session, Version], None]:
    """Return what writes the manifest beside the version's row."""

    def write(session: Session, version: Version) -> None:
        _check_still_there(session, {one.person for one in people if one.is_user})
        session.add(
            PopulationRow(
                number=version.number,
                name=version.name,
                base_digest=version.base_digest,
                created_s=version.created_s,
                sources=[asdict(source) for source in sources],
                num_people=len({one.person for one in people}),
                num_forgotten=0,
            )
        )
        session.flush()
        session.add_all(_person_row(version.number, one) for one in people)

    return write


def _check_still_there(session: Session, persons: Iterable[str]) -> None:
    """Raise Erased where a user among the people is no user any more: no receipt has named this version."""
    left = sorted(persons)
    for start in range(0, len(left), MAX_ROWS):
        some = left[start : start + MAX_ROWS]
        found = select(UserRow.user_id).where(UserRow.external_hash.in_(some)).with_for_update()
        if len(session.scalars(found).all()) != len(some):
            raise Erased("somebody in these logs was forgotten meanwhile")


def _person_row(number: int, one: LogPerson) -> PopulationPersonRow:
    return PopulationPersonRow(
        number=number,
        source=one.source,
        person=one.person,
        num_conversations=one.num_conversations,
        num_lessons=one.num_lessons,
    )


def _use(row: PopulationRow, held: Sequence[PopulationPersonRow], in_line: bool) -> PopulationUse:
    digests = tuple(str(source["digest"]) for source in row.sources)
    return PopulationUse(
        number=row.number,
        name=row.name,
        sources=digests,
        in_sources=tuple(digests[one.source] for one in sorted(held, key=lambda one: one.source)),
        num_conversations=sum(one.num_conversations for one in held),
        num_lessons=sum(one.num_lessons for one in held),
        in_line=in_line,
    )


def _population(row: PopulationRow, is_head: bool, kept: bool) -> Population:
    sources = tuple(LogSource(**source) for source in row.sources)
    return Population(
        row.number, row.name, row.base_digest, row.created_s, sources, row.num_people, row.num_forgotten, is_head, kept
    )


def _make_owner(session: Session, now_s: float) -> None:
    row = new_row(None, now_s)
    session.add(row)
    session.add(MetaRow(name=POPULATION, number=0, text=row.user_id))
    session.flush()


def _owner(session: Session) -> str | None:
    return session.scalars(select(MetaRow.text).where(MetaRow.name == POPULATION)).one_or_none()
