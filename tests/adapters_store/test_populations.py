"""The population adapter's owner, manifests, and what ``forget`` finds in them."""

import json

import pytest

from adapters_store.database import Database
from adapters_store.errors import Erased, HeadMoved, InvalidValue, NotFound
from adapters_store.migration import migrate
from adapters_store.sources import LogPerson, LogSource
from adapters_store.sqlite import driver
from adapters_store.types import BEGAN_WITH


def source(digest: str = "a", **counts: int) -> LogSource:
    plain = {"num_bytes": 10, "num_lines": 3, "num_broken": 1, "num_conversations": 2, "num_people": 1}
    return LogSource(digest * 64, **{**plain, "num_lessons": 2, **counts})


SOURCES = (source(),)


def build(hand, *names: str, sources=SOURCES, users=True, **changes):
    """Publish a version of which the people of these names are part, all in the first log."""
    owner = hand.store.ensure_population_owner()
    head = hand.store.population_head(hand.base)
    people = [LogPerson(hand.store.person(name), 0, 2, 1, is_user=users) for name in names]
    return hand.store.publish_population(
        hand.stage(owner, moments=False),
        **{
            "base_digest": hand.base,
            "parent": head.number if head else None,
            "sources": sources,
            "people": people,
            "metrics": {"loss_last": 0.5},
            **changes,
        },
    )


def test_the_owner_is_nobody_and_always_the_same(hand):
    owner = hand.store.ensure_population_owner()
    assert owner.reserved and hand.store.ensure_population_owner() == owner
    assert hand.store.list_users() == []
    assert not hand.user("population").reserved and hand.user("population").user_id != owner.user_id
    assert hand.user(owner.user_id).user_id != owner.user_id, "his random id as somebody's name is just a name"


def test_a_version_has_its_manifest_in_the_same_transaction(local, crash_hook):
    def hook(name):
        if name == "publish.in_transaction":
            raise RuntimeError("cut here")

    crash_hook(hook)
    with pytest.raises(RuntimeError, match="cut here"):
        build(local, "ann", users=False)
    crash_hook(lambda name: None)
    assert local.store.populations() == [] and local.store.population_head(local.base) is None
    version = build(local, "ann", users=False, sources=(source("a"), source("b")))
    (known,) = local.store.populations()
    assert (known.number, known.name, known.is_head, known.kept) == (version.number, version.name, True, True)
    assert [one.digest[0] for one in known.sources] == ["a", "b"] and known.num_people == 1
    assert version.origin == "population"
    written = json.loads((local.store.path(version) / "manifest.json").read_text())
    assert [one["digest"] for one in written["state"]["sources"]] == ["a" * 64, "b" * 64]


def test_who_has_not_begun_begins_with_it_and_nobody_else(hand):
    new, own, reset, elsewhere = (hand.user(name) for name in ("new", "own", "reset", "elsewhere"))
    assert hand.store.population_for(new.user_id, hand.base) is None
    hand.publish(own)
    hand.publish(elsewhere, base=hand.other_base)
    hand.store.reset(reset.user_id, hand.base)
    counter = hand.store.change_counter()
    version = build(hand)
    assert hand.store.change_counter() > counter
    assert hand.store.population_for(new.user_id, hand.base) == version
    for user in (own, reset, elsewhere):
        assert hand.store.population_for(user.user_id, hand.base) is None
    assert hand.store.population_for(new.user_id, hand.other_base) is None
    assert hand.store.head(new.user_id, hand.base) is None


def test_undo_of_a_first_version_leads_back_to_it_and_reset_does_not(hand):
    ann = hand.user("ann")
    version = build(hand)
    hand.publish(ann, metrics={BEGAN_WITH: version.number})
    hand.publish(ann, metrics={BEGAN_WITH: version.number})
    assert hand.store.undo_last(ann.user_id, hand.base).number == 1
    assert hand.store.undo_last(ann.user_id, hand.base) is None
    assert hand.store.population_for(ann.user_id, hand.base) == version
    with pytest.raises(NotFound):
        hand.store.undo_last(ann.user_id, hand.base)
    hand.store.rollback(ann.user_id, 2)
    assert hand.store.population_for(ann.user_id, hand.base) is None
    hand.store.reset(ann.user_id, hand.base)
    assert hand.store.population_for(ann.user_id, hand.base) is None


def test_forget_names_what_concerns_the_user_once_and_leaves_no_hash(local):
    hand = local
    ann, bob = hand.user("ann"), hand.user("bob")
    first, second = build(hand, "ann", sources=(source("a"), source("b"))), build(hand, "bob", sources=(source("c"),))
    hand.publish(ann, metrics={BEGAN_WITH: second.number})
    person = hand.store.person("ann")
    receipt = hand.store.forget(ann.user_id)
    one, two = receipt.population
    assert (one.number, one.in_sources, one.in_line) == (first.number, ("a" * 64,), False)
    assert (one.sources, one.num_conversations, one.num_lessons) == (("a" * 64, "b" * 64), 2, 1)
    assert (two.number, two.in_sources, two.in_line, two.sources) == (second.number, (), True, ("c" * 64,))
    assert [known.num_forgotten for known in hand.store.populations()] == [0, 1]
    assert hand.store.population_uses(person) == ()
    assert not any(person.encode() in path.read_bytes() for path in hand.files())
    lines = [line for line in hand.store.audit_log() if line.action == "population.concerned"]
    assert [line.detail["number"] for line in reversed(lines)] == [1, 2] and hand.store.audit_intact()
    assert [use.number for use in hand.store.forget(bob.user_id).population] == [second.number]
    assert hand.store.forget(hand.user("carol").user_id).population == ()


def test_a_person_of_a_log_who_is_no_user_can_be_asked_for(hand):
    version = build(hand, "dora", users=False)
    (use,) = hand.store.population_uses(hand.store.person("dora"))
    assert (use.number, use.in_line) == (version.number, False)


def test_a_build_overtaken_by_forget_leaves_nothing(local):
    ann = local.user("ann")
    staged = local.stage(local.store.ensure_population_owner(), moments=False)
    people = [LogPerson(local.store.person("ann"), 0, 1, 1, is_user=True)]
    local.store.forget(ann.user_id)
    with pytest.raises(Erased):
        local.store.publish_population(
            staged, base_digest=local.base, parent=None, sources=(source(),), people=people, metrics={}
        )
    assert local.store.populations() == [] and not staged.exists()
    assert not any(path.name == "adapter_model.safetensors" for path in local.files())


def test_of_two_builds_the_second_loses(hand):
    build(hand)
    with pytest.raises(HeadMoved):
        build(hand, parent=None)
    assert len(hand.store.populations()) == 1


def test_there_are_one_to_64_sources(hand):
    for sources in ((), (source(),) * 65):
        with pytest.raises(InvalidValue, match="1 to 64"):
            build(hand, sources=sources)


def test_removed_versions_are_gone_and_their_manifests_stay(local):
    hand = local
    first, second, third = (build(hand, "ann", users=False) for _ in range(3))
    ann = hand.user("ann")
    own = hand.publish(ann, metrics={BEGAN_WITH: third.number})
    with pytest.raises(NotFound, match="99"):
        hand.store.remove_populations([first.number, 99])
    assert len(hand.store.versions(first.user_id)) == 3, "nothing was deleted"
    assert [one.number for one in hand.store.remove_populations([first.number])] == [first.number]
    assert hand.store.population_head(hand.base) == third
    assert {one.number for one in hand.store.remove_populations()} == {second.number, third.number}
    assert hand.store.population_head(hand.base) is None
    assert [known.kept for known in hand.store.populations()] == [False] * 3
    assert not any(first.user_id in str(path) and path.suffix == ".safetensors" for path in hand.files())
    assert hand.store.head(ann.user_id, hand.base) == own
    assert [use.number for use in hand.store.forget(ann.user_id).population] == [1, 2, 3]
    assert hand.store.remove_populations() == []
    assert build(hand).number == 4, "a number is never used again"


def test_many_may_make_the_owner_at_once(open_hand):
    hands = [open_hand() for _ in range(3)]
    assert len({hand.store.ensure_population_owner().user_id for hand in hands}) == 1


def test_retention_treats_its_versions_as_everybodys(hand):
    for _ in range(13):
        build(hand)
        hand.clock.now += 40 * 86_400
    hand.store.prune()
    assert len(hand.store.versions(hand.store.ensure_population_owner().user_id)) == 10
    assert len(hand.store.populations()) == 13


def test_a_copy_that_an_upgrade_left_loses_the_persons_hash_too(tmp_path, open_hand):
    path = tmp_path / "home" / "index.sqlite"
    database = Database(f"sqlite:///{path}")
    migrate(database)
    database.close()
    hand = open_hand()
    ann = hand.user("ann")
    build(hand, "ann")
    person = hand.store.person("ann")
    copy = path.with_name("index.sqlite.backup-9999")
    with driver.connect(path) as live, driver.connect(copy) as kept:
        live.backup(kept)
    kept.close()
    assert person.encode() in copy.read_bytes()
    hand.store.forget(ann.user_id)
    assert person.encode() not in copy.read_bytes()
