"""One applied update as the store still knows it: what an explanation is made from."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from adapters_store import Store
from adapters_store import errors as stored
from adapters_store.types import BEGAN_WITH, Update, Version
from personalize.errors import AdapterMismatch, Conflict, Gone, InvalidParameter, NotFound
from personalize.types import Experience, ExplainRequest, LearningState, Outcome
from personalize.updates.lessons import experience
from personalize.updates.storage import reference, translated

LATEST = "latest"
_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Case:
    """An update and everything that it was made from.

    Attributes:
        request: turn, block and versions, as a learner takes them.
        version: the number that the update made.
        parent: the user's number that it began from; None for the base model or the population adapter.
        told: follow-ups that the teacher was told, oldest first, as far as they still exist.
        num_told_gone: follow-ups that it was told and that no longer exist.
    """

    update: Update
    request: ExplainRequest
    version: int
    parent: int | None
    told: tuple[str, ...]
    num_told_gone: int


def find_case(store: Store, base_digest: str, user_id: str, asked: str) -> Case:
    """Return the user's update that ``asked`` names: its id, its turn's id, or "latest"; it blocks.

    Raises:
        InvalidParameter: ``asked`` is none of these.
        NotFound: the user has no such update.
        Conflict: it has made no version.
        Gone: the version, its parent, or the turn's text does not exist any more.
        AdapterMismatch: it was made for another base.
    """
    if asked != LATEST and not _ID.fullmatch(asked):
        raise InvalidParameter("update", asked, f"{LATEST!r}, or the 32 hex digits of an update or a turn")
    with translated():
        update = _update(store, user_id, asked)
        if update.outcome != Outcome.APPLIED or update.version is None:
            raise Conflict(
                f"update {update.update_id} made no version: its outcome is {update.outcome!r}; allowed: an applied one"
            )
        version = _version(store, user_id, update.version, "the version that the update made")
        if version.base_digest != base_digest:
            raise AdapterMismatch(f"version {version.number} was made for another base model", param="update")
        return _case(store, update, version, _beginning(store, version))


def _case(store: Store, update: Update, version: Version, parent: Version | None) -> Case:
    turn = _turn(store, update.user_id, update.turn_id)
    if turn is None:
        raise Gone(f"the text of turn {update.turn_id}, which the update was about, is gone", param="update")
    names = LearningState.from_json(version.state).block
    block = [known for name in names if (known := _turn(store, update.user_id, name)) is not None]
    num_gone = len(names) - len(block)
    with _still(f"the folder of version {version.number} or of its parent"):
        adapter, from_adapter = reference(store, version), reference(store, parent)
    assert adapter is not None
    return Case(
        update=update,
        request=ExplainRequest(turn, () if num_gone else tuple(block), adapter, from_adapter),
        version=version.number,
        parent=version.parent,
        told=tuple(told.follow_up for told in block),
        num_told_gone=num_gone,
    )


def _update(store: Store, user_id: str, asked: str) -> Update:
    if asked == LATEST:
        found = store.updates(user_id, 1, outcome=Outcome.APPLIED.value)
    else:
        found = [update] if (update := named(store, user_id, asked)) else []
    if not found:
        raise NotFound("no update of this user has been applied yet" if asked == LATEST else "no such update")
    return found[0]


def named(store: Store, user_id: str, asked: str) -> Update | None:
    """Return the user's update of that id, or about the turn of that id; None where there is none."""
    try:
        update = store.update(asked)
    except stored.NotFound:
        update = None
    if update is not None and update.user_id == user_id:
        return update
    return next(iter(store.updates(user_id, 1, turn_id=asked)), None)


def _version(store: Store, user_id: str, number: int, what: str) -> Version:
    with _still(f"{what}, number {number},"):
        return store.version(user_id, number)


def _beginning(store: Store, version: Version) -> Version | None:
    """Return the version whose weights it began with: the parent, or the population adapter's; None for the base."""
    if version.parent is not None:
        return _version(store, version.user_id, version.parent, "the parent version")
    if (number := version.metrics.get(BEGAN_WITH)) is None:
        return None
    with _still(f"the population adapter's version {int(number)}, with which it began,"):
        return store.population_version(int(number))


def _turn(store: Store, user_id: str, turn_id: str) -> Experience | None:
    """Return one of the user's turns with its follow-up; None where one of the two is gone."""
    try:
        turn = store.load_turn(turn_id)
    except stored.NotFound:
        return None
    # An imported state may name any turn: only the user's own may ever be shown.
    return experience(turn, turn.follow_up) if turn.user_id == user_id and turn.follow_up else None


@contextmanager
def _still(what: str) -> Iterator[None]:
    """Say of something that is not found that it is gone."""
    try:
        yield
    except stored.NotFound as error:
        raise Gone(f"{what} has been removed: the update cannot be explained any more", param="update") from error
