"""Which steps a version is made of: written down with it, or read off the versions that are kept."""

import pytest

from adapters_store import LocalBlobs, Store
from adapters_store.limits import Limits
from personalize.backends.echo import write_folder
from personalize.updates.lineage import KEY, MAX_RANGES, Lineage, lineage_of

BASE = "b" * 64


@pytest.fixture
def store(tmp_path):
    limits = Limits(keep_newest=2, keep_daily_days=0)
    with Store.open(f"sqlite:///{tmp_path / 'index.sqlite'}", LocalBlobs(tmp_path), limits=limits) as opened:
        yield opened


def published(store, *, origin="update", state=None, metrics=None, base=BASE):
    """A version as code that knows no lineages publishes it, unless ``state`` has one."""
    user = store.ensure_user("alice")
    head = store.head(user.user_id, base)
    folder = store.stage(user.user_id)
    write_folder(folder, "seed")
    return store.publish(
        folder, user_id=user.user_id, base_digest=base, parent=head.number if head else None, epoch=0, update_id=None,
        state=state or {}, metrics=metrics or {}, origin=origin,
    )  # fmt: skip


@pytest.mark.parametrize("steps", [(), (1,), (1, 2, 3), (1, 3), (2, 3, 7, 9, 10)])
def test_it_comes_back_from_json(steps):
    for lineage in (Lineage(steps), Lineage(steps, 1), Lineage(steps, 1, False)):
        assert Lineage.from_json(lineage.to_json()) == lineage


def test_successive_steps_take_no_room():
    assert Lineage(tuple(range(1, 10_001))).to_json()["steps"] == [[1, 10_000]]


def test_beyond_its_room_the_oldest_are_forgotten_and_it_says_so():
    steps = tuple(range(1, 4 * MAX_RANGES, 2))
    kept = Lineage.from_json(Lineage(steps).to_json())
    assert kept.steps == steps[-MAX_RANGES:]
    assert (kept.root, kept.whole) == (steps[-MAX_RANGES - 1], False)


def test_what_begins_what():
    lineage = Lineage((1, 2, 3))
    assert lineage.begins(lineage) and lineage.begins(lineage.and_then(5)) and Lineage().begins(lineage)
    for other in (Lineage((1, 2)), lineage.without(2), Lineage((1, 2, 3), 1), Lineage((1, 2, 3), 1, False)):
        assert not lineage.begins(other)


def test_a_written_lineage_needs_no_other_version(store):
    state = {KEY: Lineage((1, 2, 5), 1).to_json()}
    assert lineage_of(store, published(store, state=state)) == Lineage((1, 2, 5, 1), 1)
    assert lineage_of(store, published(store, state=state, origin="recomputation")) == Lineage((1, 2, 5), 1)
    assert lineage_of(store, None) == Lineage()


def test_an_unwritten_one_is_read_off_the_versions_that_are_kept(store):
    first, second = published(store), published(store)
    assert (lineage_of(store, first), lineage_of(store, second)) == (Lineage((1,)), Lineage((1, 2)))
    third = published(store)
    assert lineage_of(store, third) == Lineage((2, 3), 1, False), "version 1 is gone, and with it what was before"


def test_an_import_is_a_root_and_a_rebase_none(store):
    published(store)
    published(store, origin="import")
    assert lineage_of(store, published(store)) == Lineage((3,), 2)
    rebased = published(store, origin="rebase", base="c" * 64, metrics={"rebased_from": 3.0})
    assert lineage_of(store, rebased) == Lineage((3,), 2)
