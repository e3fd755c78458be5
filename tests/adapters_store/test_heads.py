import pytest
from sqlalchemy import event

from adapters_store.errors import HeadMoved, NotFound


def test_rollback_moves_the_head_and_nothing_is_numbered_twice(hand):
    user = hand.user()
    versions = [hand.publish(user) for _ in range(3)]
    assert hand.store.rollback(user.user_id, 1) == versions[0] == hand.store.head(user.user_id, hand.base)
    branch = hand.publish(user)
    assert (branch.number, branch.parent) == (4, 1)
    assert [version.number for version in hand.store.versions(user.user_id)] == [4, 3, 2, 1]
    assert hand.store.rollback(user.user_id, 3) == versions[2]
    with pytest.raises(NotFound, match="no version 9; there are 1 to 4"):
        hand.store.rollback(user.user_id, 9)
    with pytest.raises(NotFound, match="no version 1; there is none"):
        hand.store.rollback(hand.user("bob").user_id, 1)


def test_undo_goes_to_the_parent_and_ends_at_the_base(hand):
    user = hand.user()
    first, second = hand.publish(user), hand.publish(user)
    assert hand.store.undo_last(user.user_id, hand.base) == first
    assert hand.store.undo_last(user.user_id, hand.base) is None
    assert hand.store.head(user.user_id, hand.base) is None
    with pytest.raises(NotFound):
        hand.store.undo_last(user.user_id, hand.base)
    assert hand.publish(user).number == 3
    assert hand.store.rollback(user.user_id, 2) == second


def test_undo_of_a_branch_goes_to_its_own_parent(hand):
    user = hand.user()
    for _ in range(3):
        hand.publish(user)
    hand.store.rollback(user.user_id, 1)
    hand.publish(user)
    assert hand.store.undo_last(user.user_id, hand.base).number == 1


def test_undo_to_another_version_is_bound_to_the_head_and_says_why(hand):
    user = hand.user()
    first, second, third = (hand.publish(user) for _ in range(3))
    waiting, counter = hand.queue(user), hand.store.change_counter()
    with pytest.raises(HeadMoved):
        hand.store.undo_to(user.user_id, hand.base, second.number, first.number)
    assert hand.store.head(user.user_id, hand.base) == third and hand.store.change_counter() == counter
    assert hand.store.undo_to(user.user_id, hand.base, third.number, first.number, turn="t7") == first
    assert hand.store.head(user.user_id, hand.base) == first and hand.store.change_counter() > counter
    assert hand.store.update(waiting).outcome == "cancelled_rollback"
    (line, *_) = hand.store.audit_log(1)
    assert (line.action, line.detail["before"], line.detail["after"]) == ("version.undo", 3, 1)
    assert line.detail["turn"] == "t7"
    assert hand.store.undo_to(user.user_id, hand.base, first.number, None) is None
    assert hand.store.head(user.user_id, hand.base) is None
    with pytest.raises(NotFound):
        hand.store.undo_to("0" * 32, hand.base, 1, None)


def test_reset_begins_anew(hand):
    user = hand.user()
    hand.publish(user)
    hand.store.reset(user.user_id, hand.base)
    assert hand.store.head(user.user_id, hand.base) is None
    version = hand.publish(user)
    assert (version.number, version.parent) == (2, None)
    assert len(hand.store.versions(user.user_id)) == 2


def test_reset_lets_a_user_begin_on_another_base(hand):
    user = hand.user()
    old = hand.publish(user)
    assert hand.store.has_other_heads(user.user_id, hand.other_base)
    hand.store.reset(user.user_id, hand.other_base)
    assert not hand.store.has_other_heads(user.user_id, hand.other_base)
    hand.publish(user, base=hand.other_base)
    assert hand.store.head(user.user_id, hand.base) == old, "switching back is unharmed"


@pytest.mark.parametrize("move", ["rollback", "undo_last", "reset"])
def test_every_move_cancels_what_waits_and_is_counted(hand, move):
    ann, bob = hand.user("ann"), hand.user("bob")
    hand.publish(ann)
    hand.publish(ann)
    running, waiting, other = hand.queue(ann), hand.queue(ann), hand.queue(bob)
    hand.claim(exclude_users={bob.user_id})
    done = hand.queue(ann)
    hand.store.finish_update(done, "skipped_praise")
    before = hand.store.change_counter()
    getattr(hand.store, move)(ann.user_id, {"rollback": 1}.get(move, hand.base))
    assert hand.store.change_counter() > before
    outcomes = [hand.store.update(update_id).outcome for update_id in (running, waiting, done, other)]
    assert outcomes == ["cancelled_rollback", "cancelled_rollback", "skipped_praise", "queued"]
    assert [one.update_id for one in hand.claim()] == [other]
    assert hand.store.audit_log(1)[0].action == f"version.{move.removesuffix('_last')}"


def test_an_undone_turn_is_never_trained_again(hand):
    user = hand.user()
    update_id = hand.queue(user)
    (claimed,) = hand.claim()
    hand.publish(user, update_id=update_id)
    hand.store.undo_last(user.user_id, hand.base)
    again = hand.store.queue_follow_up(user.user_id, claimed.turn_id, "r", "hm")
    assert again.outcome == "skipped_duplicate"
    assert hand.claim() == []


def test_the_head_is_one_indexed_select(local):
    user = local.user()
    for _ in range(3):
        version = local.publish(user)
    seen = []
    engine = local.store._database.reading
    event.listen(engine, "before_cursor_execute", lambda c, cursor, sql, values, *rest: seen.append((sql, values)))
    assert local.store.head(user.user_id, local.base) == version
    assert len(seen) == 1
    with engine.connect() as connection:
        plan = [str(row) for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {seen[0][0]}", seen[0][1])]
    assert plan and all("SEARCH" in step and "INDEX" in step for step in plan)


def test_pins(hand):
    user = hand.user()
    hand.publish(user)
    hand.store.pin(user.user_id, 1, True)
    assert hand.store.version(user.user_id, 1).pinned
    hand.store.pin(user.user_id, 1, False)
    assert not hand.store.version(user.user_id, 1).pinned
    with pytest.raises(NotFound):
        hand.store.pin(user.user_id, 2, True)
