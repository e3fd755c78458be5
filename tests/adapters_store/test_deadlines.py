"""Updates that wait for too long end by themselves: constant overload, with a clock that is set by hand."""

import pytest

from adapters_store.errors import InvalidValue, LeaseLost

MAX_WAIT_S = 60.0
TTL_S = 3600.0  # longer than a test waits: nobody renews here


def shed(hand, within_s=0.0):
    assert hand.store.acquire_lease("me", TTL_S)
    return dict(hand.store.shed_updates("me", within_s))


def outcomes(hand, ids):
    return [hand.store.update(update_id).outcome for update_id in ids]


def test_who_waits_for_too_long_is_skipped_or_superseded_by_a_newer_one(hand, clock):
    ann, bob = hand.user("ann"), hand.user("bob")
    assert shed(hand) == {}
    old = [hand.queue(ann, max_wait_s=MAX_WAIT_S), hand.queue(ann, max_wait_s=MAX_WAIT_S)]
    lone = hand.queue(bob, max_wait_s=MAX_WAIT_S)
    clock.now += 30
    newer = hand.queue(ann, max_wait_s=MAX_WAIT_S)
    assert shed(hand) == {}
    clock.now += 31
    assert shed(hand) == {"superseded": 2, "skipped_budget": 1}
    assert outcomes(hand, [*old, lone, newer]) == ["superseded", "superseded", "skipped_budget", "queued"]
    assert [one.update_id for one in hand.claim()] == [newer]
    assert hand.store.update(lone).finished_s - hand.store.update(lone).created_s > MAX_WAIT_S


def test_what_is_under_way_or_has_no_deadline_is_left_alone(hand, clock):
    ann, bob = hand.user("ann"), hand.user("bob")
    assert shed(hand) == {}
    runs, waits = hand.queue(ann, max_wait_s=MAX_WAIT_S), hand.queue(bob)
    assert {one.update_id for one in hand.claim(limit=1)} == {runs}
    assert shed(hand) == {}
    clock.now += 1000
    assert shed(hand) == {}
    assert outcomes(hand, [runs, waits]) == ["queued", "queued"]
    hand.store.release_update(runs)
    assert shed(hand) == {"skipped_budget": 1}, "given back, it waits again, and has for long"


def test_a_backlog_from_before_the_lease_is_worked_off(hand, clock):
    ann = hand.user()
    backlog = hand.queue(ann, max_wait_s=MAX_WAIT_S)
    clock.now += 500
    assert shed(hand) == {}
    fresh = hand.queue(ann, max_wait_s=MAX_WAIT_S)
    clock.now += 61
    assert shed(hand) == {"skipped_budget": 1}
    assert outcomes(hand, [backlog, fresh]) == ["queued", "skipped_budget"]


def test_a_backlog_from_while_the_lease_had_lapsed_is_worked_off(hand, clock):
    """The holder hung, nobody else came, and it takes its own lease again: with the fence it had."""
    assert shed(hand) == {}
    clock.now += TTL_S + 600
    assert hand.store.lease_holder() is None
    backlog = hand.queue(hand.user(), max_wait_s=MAX_WAIT_S)
    clock.now += 3000
    assert shed(hand) == {}
    assert [one.update_id for one in hand.claim()] == [backlog]


def test_a_pause_for_want_of_space_counts_for_nobody(open_hand, clock):
    used = [10]
    hand = open_hand(disk_usage=lambda path: (100, used[0], 100 - used[0]))
    assert shed(hand) == {}
    waits = hand.queue(hand.user(), max_wait_s=MAX_WAIT_S)
    used[0] = 95
    clock.now += 61
    assert shed(hand) == {} and hand.claim() == []
    used[0] = 10
    assert shed(hand) == {}
    assert [one.update_id for one in hand.claim()] == [waits]


def test_what_expires_before_the_next_look_expires_now(hand, clock):
    assert shed(hand) == {}
    hand.queue(hand.user(), max_wait_s=MAX_WAIT_S)
    clock.now += 59
    assert shed(hand) == {}
    assert shed(hand, within_s=2.0) == {"skipped_budget": 1}


def test_only_the_holder_of_the_lease_sheds_and_a_limit_is_a_time(hand):
    with pytest.raises(LeaseLost):
        hand.store.shed_updates("me")
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(InvalidValue, match="max_wait_s"):
            hand.queue(hand.user(), max_wait_s=bad)


def test_constant_overload_leaves_nobody_without_an_outcome(local, clock):
    """Two follow-ups a second for three times the limit, with a learner that takes four seconds for two users."""
    hand, users, max_wait_s = local, [local.user(f"user{n}") for n in range(6)], 8.0
    assert shed(hand) == {}
    began, ids, starts, done_s = clock.now, [], {}, 0.0
    running: list = []
    for tick in range(24):
        clock.now = began + tick
        ids += [hand.queue(users[(2 * tick + n) % 6], max_wait_s=max_wait_s) for n in range(2)]
        if running and clock.now >= done_s:
            for one in running:
                hand.store.finish_update(one.update_id, "skipped_low_signal")
            running = []
        if not running:
            running, done_s = hand.claim(limit=2), clock.now + 4
            starts |= {one.update_id: clock.now for one in running}
        shed(hand, within_s=1.0)
    found = [hand.store.update(update_id) for update_id in ids]
    waits = [starts.get(one.update_id, one.finished_s or clock.now) - one.created_s for one in found]
    assert max(waits) <= max_wait_s
    counts = {outcome: sum(one.outcome == outcome for one in found) for outcome in ("superseded", "skipped_low_signal")}
    assert counts["skipped_low_signal"] >= 8, "the learner was busy all the time"
    assert counts["superseded"] >= 10
