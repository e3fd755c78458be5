import pytest

from adapters_store import Limits
from adapters_store.errors import InvalidValue, NotFound, StorageUnavailable


def test_a_follow_up_is_queued_once_for_ever(hand, clock):
    user = hand.user()
    turn_id = hand.turn(user)
    first = hand.store.queue_follow_up(user.user_id, turn_id, "r-1", "shorter")
    assert first.outcome == "queued"
    again = hand.store.queue_follow_up(user.user_id, turn_id, "r-2", "shorter")
    assert (again.outcome, again.update_id) == ("skipped_duplicate", first.update_id)
    hand.claim()
    hand.store.finish_update(first.update_id, "skipped_low_signal")
    clock.now += 400 * 86_400
    assert hand.store.prune().num_turns == 1
    late = hand.store.queue_follow_up(user.user_id, turn_id, "r-3", "shorter")
    assert (late.outcome, late.update_id) == ("skipped_duplicate", first.update_id)
    assert len(hand.store.updates(user.user_id)) == 1


def test_only_turns_of_the_user_can_be_answered(hand):
    ann, bob = hand.user("ann"), hand.user("bob")
    turn_id = hand.turn(bob)
    for user_id, turn in ((ann.user_id, turn_id), (ann.user_id, "0" * 32), ("0" * 32, turn_id)):
        with pytest.raises(NotFound):
            hand.store.queue_follow_up(user_id, turn, "r", "hm")
    assert hand.store.status().pending_updates == 0
    with pytest.raises(InvalidValue):
        hand.store.queue_follow_up(bob.user_id, turn_id, "r", "")


@pytest.mark.parametrize("turn_id", ["0" * 32, "../x"])
def test_what_answers_no_turn_leaves_no_file(local, turn_id):
    user = local.user()
    with pytest.raises((NotFound, InvalidValue)):
        local.store.queue_follow_up(user.user_id, turn_id, "r", "hm")
    assert local.files_beside_the_index() == []


def test_beyond_the_limit_the_oldest_waiting_one_is_superseded(hand):
    user = hand.user()
    ids = [hand.queue(user, max_queued=3) for _ in range(5)]
    outcomes = [hand.store.update(update_id).outcome for update_id in ids]
    assert outcomes == ["superseded", "superseded", "queued", "queued", "queued"]
    (claimed,) = hand.claim()
    assert claimed.update_id == ids[2]
    hand.queue(user, max_queued=3)
    assert hand.store.update(ids[2]).outcome == "queued", "what runs does not wait"
    assert hand.store.update(ids[3]).outcome == "queued"


def test_claims_are_the_oldest_of_each_user_one_at_a_time(hand):
    ann, bob, eve = hand.user("ann"), hand.user("bob"), hand.user("eve")
    a1, b1, a2, e1 = hand.queue(ann, "first"), hand.queue(bob), hand.queue(ann, "second"), hand.queue(eve)
    claimed = hand.claim(limit=2)
    assert [one.update_id for one in claimed] == [a1, b1]
    one = claimed[0]
    assert (one.user_id, one.follow_up, one.attempts, one.epoch, one.head) == (ann.user_id, "first", 1, 0, None)
    assert hand.claim(exclude_users={eve.user_id}) == [], "ann and bob have one under way"
    assert [one.update_id for one in hand.claim()] == [e1]
    version = hand.publish(ann, update_id=a1)
    (second,) = hand.claim()
    assert (second.update_id, second.head) == (a2, version)
    assert second.head.state == {"replay": ["t1"]}


def test_an_outcome_is_final(hand):
    user = hand.user()
    update_id = hand.queue(user)
    hand.claim()
    assert hand.store.finish_update(update_id, "rejected_kl", {"kl": 0.5, "bad": float("nan")}) == "rejected_kl"
    assert hand.store.finish_update(update_id, "failed") == "rejected_kl"
    hand.store.release_update(update_id)
    found = hand.store.update(update_id)
    assert (found.outcome, found.metrics, found.version, found.attempts) == ("rejected_kl", {"kl": 0.5}, None, 1)
    assert found.finished_s > found.created_s
    assert hand.claim() == []


def test_what_is_skipped_without_a_start_can_be_finished_too(hand):
    update_id = hand.queue(hand.user())
    assert hand.store.finish_update(update_id, "skipped_budget") == "skipped_budget"


@pytest.mark.parametrize("outcome", ["applied", "queued", "", "x" * 65])
def test_outcomes_that_only_the_store_gives(local, outcome):
    with pytest.raises(InvalidValue):
        local.store.finish_update(local.queue(local.user()), outcome)


@pytest.mark.parametrize("metrics", [{"x": "text"}, {"x": None}, {str(n): 1.0 for n in range(65)}, {"": 1.0}])
def test_metrics_are_numbers(local, metrics):
    with pytest.raises(InvalidValue):
        local.store.finish_update(local.queue(local.user()), "failed", metrics)


def test_unknown_updates(hand):
    with pytest.raises(NotFound):
        hand.store.finish_update("0" * 32, "failed")
    with pytest.raises(NotFound):
        hand.store.update("0" * 32)
    hand.store.release_update("0" * 32)
    assert hand.store.outcome("nobody asked this") is None


def test_three_crashes_fail_an_update_without_a_fourth_start(open_hand, clock):
    update_id = None
    for start in (1, 2, 3):
        hand = open_hand()  # another process, after the one before has died
        update_id = update_id or hand.queue(hand.user())
        (claimed,) = hand.claim(f"process {start}")
        assert claimed.attempts == start
        clock.now += 61
    last = open_hand()
    assert last.claim("process 4") == []
    found = last.store.update(update_id)
    assert (found.outcome, found.attempts) == ("failed", 3)


def test_the_start_is_counted_before_the_work(open_hand):
    hand = open_hand()
    update_id = hand.queue(hand.user())
    hand.claim()
    assert open_hand().store.update(update_id).attempts == 1


def test_releases_in_good_order_are_no_crashes(open_hand, clock):
    hand = open_hand()
    update_id = hand.queue(hand.user())
    for start in range(1, 8):
        (claimed,) = hand.claim()
        assert (claimed.update_id, claimed.attempts) == (update_id, start)
        hand.store.release_update(update_id)
    hand.claim()
    clock.now += 61
    (claimed,) = open_hand().claim("another")
    assert claimed.attempts == 9, "one crash among nine starts"


def test_a_follow_up_whose_text_is_gone_fails(hand):
    user = hand.user()
    update_id = hand.queue(user)
    hand.store._blobs.delete(f"users/{user.user_id}/follow_ups/{update_id}.txt")
    assert hand.claim() == []
    assert hand.store.update(update_id).outcome == "failed"


def test_claims_are_given_back_when_the_disk_fails_while_reading(local, monkeypatch):
    update_id = local.queue(local.user())

    def broken(key):
        raise StorageUnavailable("EIO")

    with monkeypatch.context() as patch:
        patch.setattr(local.store._blobs, "read", broken)
        with pytest.raises(StorageUnavailable):
            local.claim()
    assert [one.update_id for one in local.claim()] == [update_id]


def test_claims_are_given_back_even_where_one_resists(local, monkeypatch):
    first, second = (local.queue(local.user(name)) for name in ("ann", "bob"))
    real = local.store.release_update

    def release(update_id):
        if update_id == first:
            raise StorageUnavailable("busy")
        real(update_id)

    def broken(key):
        raise StorageUnavailable("EIO")

    with monkeypatch.context() as patch:
        patch.setattr(local.store, "release_update", release)
        patch.setattr(local.store._blobs, "read", broken)
        with pytest.raises(StorageUnavailable, match="EIO"):
            local.claim()
    assert [one.update_id for one in local.claim()] == [second]


def test_a_text_that_cannot_be_read_keeps_no_other_user_waiting(local, monkeypatch):
    ann, bob = local.user("ann"), local.user("bob")
    first, second = local.queue(ann), local.queue(bob)
    real = local.store._blobs.read

    def read(key):
        if str(getattr(ann, "user_id", ann)) in key:
            raise StorageUnavailable("EIO")
        return real(key)

    with monkeypatch.context() as patch:
        patch.setattr(local.store._blobs, "read", read)
        assert [one.update_id for one in local.claim()] == [second]
    assert [one.update_id for one in local.claim()] == [first], "it waits for the next look"


def refuse_once(store, monkeypatch):
    """Let the next write fail and those after it succeed."""
    real = store._write

    def write(work):
        monkeypatch.setattr(store, "_write", real)
        raise StorageUnavailable("busy")

    monkeypatch.setattr(store, "_write", write)


def test_a_release_that_failed_can_be_tried_again(hand, monkeypatch):
    update_id = hand.queue(hand.user())
    hand.claim()
    refuse_once(hand.store, monkeypatch)
    with pytest.raises(StorageUnavailable):
        hand.store.release_update(update_id)
    hand.store.release_update(update_id)
    assert [one.update_id for one in hand.claim()] == [update_id]


def test_a_finish_that_failed_can_be_tried_again(hand, monkeypatch):
    update_id = hand.queue(hand.user())
    hand.claim()
    refuse_once(hand.store, monkeypatch)
    with pytest.raises(StorageUnavailable):
        hand.store.finish_update(update_id, "failed")
    assert hand.store.finish_update(update_id, "failed") == "failed"


def test_what_is_claimed_anew_while_its_release_returns_stays_claimed(hand, monkeypatch):
    update_id = hand.queue(hand.user())
    hand.claim()
    real = hand.store._write

    def write(work):
        result = real(work)
        monkeypatch.setattr(hand.store, "_write", real)
        assert [one.update_id for one in hand.claim()] == [update_id]
        return result

    monkeypatch.setattr(hand.store, "_write", write)
    hand.store.release_update(update_id)
    assert hand.store.finish_update(update_id, "failed") == "failed"


def test_a_follow_up_whose_commit_was_not_answered_keeps_its_text(hand, lose_answer):
    user = hand.user()
    turn_id = hand.turn(user)
    lose_answer(hand.store)
    with pytest.raises(StorageUnavailable):
        hand.store.queue_follow_up(user.user_id, turn_id, "r", "shorter")
    assert hand.store.queue_follow_up(user.user_id, turn_id, "r", "shorter").outcome == "skipped_duplicate"
    assert [one.follow_up for one in hand.claim()] == ["shorter"]


def test_every_request_has_one_outcome(hand):
    user = hand.user()
    hand.turn(user, request_id="r-first", outcome="skipped_first_message")
    turn_id = hand.turn(user)
    queued = hand.store.queue_follow_up(user.user_id, turn_id, "r-second", "hm")
    hand.turn(user, request_id="r-second", outcome="queued", update_id=queued.update_id)
    assert hand.store.outcome("r-first") == "skipped_first_message"
    assert hand.store.outcome("r-second") == "queued"
    hand.claim()
    hand.publish(user, update_id=queued.update_id)
    assert hand.store.outcome("r-second") == "applied"
    found = hand.store.updates(user.user_id)[0]
    assert (found.version, found.request_id, found.turn_id) == (1, "r-second", turn_id)
    assert hand.store.get_user(user.user_id).num_updates == 1


def test_nothing_is_claimed_while_the_disk_is_nearly_full(open_hand):
    used = [89]
    hand = open_hand(limits=Limits(), disk_usage=lambda path: (100, used[0], 100 - used[0]))
    update_id = hand.queue(hand.user())
    assert hand.store.status().learning_paused_reason is None
    used[0] = 90
    assert "90%" in hand.store.status().learning_paused_reason
    assert hand.claim() == []
    assert hand.store.status().pending_updates == 1
    used[0] = 50
    assert [one.update_id for one in hand.claim()] == [update_id]


def test_nothing_is_claimed_beyond_the_quota_of_all_users(open_hand):
    hand = open_hand(limits=Limits(max_total_bytes=600))
    hand.queue(hand.user())
    assert hand.store.status().learning_paused_reason is None
    hand.turn(hand.user("bob"), reply_text="x" * 600)
    assert "600" in hand.store.status().learning_paused_reason
    assert hand.claim() == []
