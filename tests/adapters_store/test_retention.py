import pytest

from adapters_store import Limits, Version
from adapters_store.errors import NotFound
from adapters_store.retention import kept_moments, kept_versions

DAY = 86_400
NOW = 1_800_000_000.0


def version(number, age_days=0.0, parent=None, pinned=False, base="b" * 64):
    made = NOW - age_days * DAY
    return Version("0" * 32, number, parent, "d" * 64, base, 8, 1, made, pinned, "update")


def test_newest_daily_pinned_heads_and_their_parents_stay():
    limits = Limits(keep_newest=2, keep_daily_days=5)
    versions = [
        version(1, 40),
        version(2, 39, pinned=True),
        version(3, 38, parent=1),
        version(4, 4.3),
        version(5, 4.2),
        version(6, 2.0),
        version(7, 0.02),
        version(8, 0.01),
        version(9, 0.0),
    ]
    assert kept_versions(versions, {9}, NOW, limits) == {2, 5, 6, 8, 9}
    assert kept_versions(versions, {3}, NOW, limits) == {1, 2, 3, 5, 6, 8, 9}


def test_bases_are_counted_apart():
    versions = [version(number, 50, base="bc"[number % 2] * 64) for number in range(1, 9)]
    assert kept_versions(versions, set(), NOW, Limits(keep_newest=2, keep_daily_days=0)) == {5, 6, 7, 8}
    assert kept_moments(versions, {1, None}, Limits(keep_moments=1)) == {1, 7, 8}


def test_the_rule_against_a_slow_reading_of_it():
    limits = Limits(keep_newest=10, keep_daily_days=30)
    versions = [version(number, age_days=(400 - number) * 0.21) for number in range(1, 401)]
    kept = kept_versions(versions, {400}, NOW, limits)
    for one in versions:
        newer = [other for other in versions if other.number > one.number]
        same_day = any(int(other.created_s // DAY) == int(one.created_s // DAY) for other in newer)
        recent = one.created_s > NOW - 30 * DAY
        assert (one.number in kept) == (len(newer) < 10 or (recent and not same_day))


def test_retention_runs_with_every_publish(open_hand):
    hand = open_hand(limits=Limits(keep_newest=3, keep_daily_days=0))
    user = hand.user()
    for _ in range(8):
        hand.publish(user)
    assert [one.number for one in hand.store.versions(user.user_id)] == [8, 7, 6]
    folders = {path.name for path in hand.home.rglob("versions/*")}
    assert folders == {one.name for one in hand.store.versions(user.user_id)}
    with_moments = {path.name for path in hand.home.rglob("moments/*")}
    assert with_moments == {one.name for one in hand.store.versions(user.user_id) if one.number >= 7}
    assert hand.publish(user).number == 9


def test_prune_removes_rows_and_files_and_says_how_many(hand, clock):
    user = hand.user()
    early = [hand.publish(user) for _ in range(4)]
    hand.store.pin(user.user_id, 2, True)
    clock.now += 20 * DAY
    late = [hand.publish(user) for _ in range(10)]
    numbers = lambda: [one.number for one in hand.store.versions(user.user_id)]  # noqa: E731
    assert numbers() == [14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 2], "the newest ten, the first day's last, the pinned"
    clock.now += 15 * DAY
    report = hand.store.prune()
    assert (report.num_versions, report.num_moments) == (1, 0) and report.num_bytes > early[3].num_bytes
    assert numbers() == [14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 2]
    with pytest.raises(NotFound):
        hand.store.path(early[3])
    for version in (early[1], *late):
        hand.store.verify(version)
    assert hand.store.prune().num_versions == 0


def test_moments_of_the_head_stay_after_a_rollback(hand):
    user = hand.user()
    versions = [hand.publish(user) for _ in range(4)]
    assert [
        hand.store.moments_path(one) is not None for one in map(hand.store.version, [user.user_id] * 4, (1, 2, 3, 4))
    ] == [
        False,
        False,
        True,
        True,
    ]
    hand.store.rollback(user.user_id, 3)
    hand.publish(user)
    hand.publish(user)
    assert hand.store.moments_path(hand.store.version(user.user_id, 3)) is None
    assert hand.store.path(versions[0]).is_dir(), "a version without moments is complete"


def test_old_conversations_go_whole_and_young_ones_stay_whole(hand, clock):
    user = hand.user()
    old = hand.turn(user)
    root = hand.turn(user)
    update_id = hand.store.queue_follow_up(user.user_id, old, "r", "hm").update_id
    clock.now += 60 * DAY
    child = hand.turn(user, parent_turn_id=root, prompt_ids=(1, 2, 3, 4, 5, 6, 7, 8))
    clock.now += 60 * DAY
    report = hand.store.prune()
    assert (report.num_turns, report.num_bytes > 0) == (1, True)
    with pytest.raises(NotFound):
        hand.store.load_turn(old)
    assert hand.store.load_turn(child).prompt_ids == (1, 2, 3, 4, 5, 6, 7, 8), "its 120-day-old root is still needed"
    assert hand.store.get_user(user.user_id).num_turns == 2
    assert hand.store.queue_follow_up(user.user_id, old, "r", "hm").update_id == update_id


def test_a_turn_that_is_recorded_again_before_its_file_goes_keeps_it(local, clock, monkeypatch):
    """Its id is made from its content: the same log, handed in again while the old conversation is removed."""
    user, turn_id = local.user(), "ab" * 16
    local.turn(user, turn_id=turn_id)
    clock.now += 120 * DAY
    real = local.store._delete_turn_file
    monkeypatch.setattr(
        local.store, "_delete_turn_file", lambda *turn: local.turn(user, turn_id=turn_id) and real(*turn)
    )
    assert local.store.prune().num_turns == 1
    assert local.store.load_turn(turn_id).turn_id == turn_id
