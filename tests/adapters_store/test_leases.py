import pytest

from adapters_store.errors import InvalidValue, LeaseLost, UpdateClosed


def test_one_holder_at_a_time(open_hand, clock):
    first, second = open_hand().store, open_hand().store
    assert first.lease_holder() is None
    assert first.acquire_lease("a", 60)
    assert not second.acquire_lease("b", 60)
    assert not second.acquire_lease("a", 60), "the same name in another process is another holder"
    assert first.lease_holder() == second.lease_holder() == "a"
    clock.now += 50
    assert first.acquire_lease("a", 60), "renewed"
    clock.now += 50
    assert not second.acquire_lease("b", 60)
    clock.now += 11
    assert second.lease_holder() is None
    assert second.acquire_lease("b", 60)
    assert not first.acquire_lease("a", 60)


def test_a_released_lease_is_free_at_once(open_hand):
    first, second = open_hand().store, open_hand().store
    assert first.acquire_lease("a", 60)
    second.release_lease("a")
    first.release_lease("somebody else")
    assert first.lease_holder() == "a"
    first.release_lease("a")
    assert second.acquire_lease("b", 60)


def test_claiming_needs_the_lease(hand, clock):
    with pytest.raises(LeaseLost):
        hand.store.claim_updates("me", 8, hand.base)
    assert hand.store.acquire_lease("me", 60)
    assert hand.store.claim_updates("me", 8, hand.base) == []
    with pytest.raises(LeaseLost):
        hand.store.claim_updates("you", 8, hand.base)
    clock.now += 61
    with pytest.raises(LeaseLost):
        hand.store.claim_updates("me", 8, hand.base)


def test_whoever_lost_the_lease_loses_at_publish(open_hand, clock):
    old, new = open_hand(), open_hand()
    user = old.user()
    update_id = old.queue(user)
    assert [one.update_id for one in old.claim("old")] == [update_id]
    clock.now += 61
    (again,) = new.claim("new")
    assert (again.update_id, again.attempts) == (update_id, 2)
    with pytest.raises(UpdateClosed):
        old.publish(user, update_id=update_id)
    assert old.store.finish_update(update_id, "failed") == "queued", "the old holder closes nothing either"
    version = new.publish(user, update_id=update_id)
    assert [version.number] == [one.number for one in old.store.versions(user.user_id)]
    assert old.store.head(user.user_id, old.base).number == version.number


def test_a_late_renewal_keeps_what_is_under_way_if_nobody_came_between(open_hand, clock):
    hand = open_hand()
    user = hand.user()
    update_id = hand.queue(user)
    hand.claim()
    clock.now += 100
    assert hand.claim() == [], "still under way, not started twice"
    assert hand.publish(user, update_id=update_id).number == 1


def test_a_lease_of_a_clock_that_was_far_ahead_is_none(open_hand, clock):
    dead, right = open_hand().store, open_hand().store
    clock.now += 30 * 86_400
    assert dead.acquire_lease("dead", 15)
    clock.now -= 30 * 86_400  # its process is killed, and the machine's clock put right
    assert right.lease_holder() is None
    with pytest.raises(LeaseLost):
        dead.claim_updates("dead", 8, "b" * 64)
    assert right.acquire_lease("a", 15)


@pytest.mark.parametrize("ttl_s", [0, -1, 1e9])
def test_silly_times_are_refused(local, ttl_s):
    with pytest.raises(InvalidValue):
        local.store.acquire_lease("me", ttl_s)
