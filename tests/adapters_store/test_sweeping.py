import os
import time

import pytest


@pytest.fixture
def today(clock):
    """The files' times are the file system's; the clock must tell the same."""
    clock.now = time.time()
    return clock


def litter(hand, user):
    """Leave what crashes leave: files and folders without rows."""
    blobs = hand.store._blobs
    home = f"users/{user.user_id}"
    staged = hand.stage(user)
    blobs.write(f"{home}/turns/{'a' * 32}.json", b"{}")
    blobs.write(f"{home}/follow_ups/{'a' * 32}.txt", b"hm")
    blobs.write(f"{home}/turns/.new-{'a' * 32}", b"torn")
    blobs.write(f"users/{'9' * 32}/turns/{'a' * 32}.json", b"{}")
    for kind in ("versions", "moments"):
        blobs.commit(hand.stage(user), f"{home}/{kind}/u_{user.user_id}@7-{'d' * 16}")
    return staged


def test_orphans_go_after_the_grace_period_and_everything_else_stays(hand, today):
    user = hand.user()
    versions = [hand.publish(user) for _ in range(4)]
    parent = hand.turn(user)
    turn_id = hand.turn(user, parent_turn_id=parent)
    hand.store.queue_follow_up(user.user_id, turn_id, "r", "hm")
    staged = litter(hand, user)
    today.now += 60
    assert hand.store.sweep().num_removed == 0, "too young: a writer may be at it"
    today.now += 3600
    report = hand.store.sweep()
    assert report.num_removed == 7 and report.num_bytes > 0
    assert not staged.exists()
    assert list(hand.store._blobs.children(f"users/{'9' * 32}")) == []
    for version in versions:
        hand.store.verify(version)
    assert hand.store.moments_path(versions[-1]) is not None
    assert hand.store.load_turn(turn_id).follow_up == "hm"
    assert hand.store.sweep().num_removed == 0


def test_names_that_are_not_ours_are_left_alone(local, today):
    local.publish(local.user())
    for name in (".DS_Store", "users/lost+found", "users/notes.txt"):
        (local.home / "files" / name).write_text("mine")
    for path in (local.home / "files").rglob("*"):
        os.utime(path, (1, 1))
    local.store.sweep()
    assert len(list((local.home / "files").rglob("*notes*"))) == 1
    assert (local.home / "files" / ".DS_Store").exists()


def test_a_version_published_between_listing_and_looking_is_safe(hand, today, monkeypatch):
    """The listing comes before the rows are read, so every row written since protects its file."""
    user = hand.user()
    hand.publish(user)
    today.now += 7200
    real, made = hand.store._known, []

    def late(user_id):
        if not made:
            made.append(hand.publish(user))
        return real(user_id)

    monkeypatch.setattr(hand.store, "_known", late)
    hand.store.sweep()
    hand.store.verify(made[0])


def test_a_stage_that_is_being_written_stays(hand, today):
    """A long build: its files grow, while the times of its folders stand still."""
    staged = hand.stage(hand.user())
    for folder in (staged, staged.parent):
        os.utime(folder, (today.now - 7200, today.now - 7200))
    assert hand.store.sweep().num_removed == 0
    assert (staged / "adapter_model.safetensors").exists()


def test_a_turn_that_is_recorded_again_after_the_look_keeps_its_file(local, today, monkeypatch):
    """Its id is made from its content, so what a crash left may be named by a row after all."""
    user, turn_id = local.user(), "ab" * 16
    local.store._blobs.write(f"users/{user.user_id}/turns/{turn_id}.json", b"{}")
    today.now += 7200
    real = local.store._delete_orphan
    monkeypatch.setattr(
        local.store, "_delete_orphan", lambda orphan: local.turn(user, turn_id=turn_id) and real(orphan)
    )
    assert local.store.sweep().num_removed == 0
    assert local.store.load_turn(turn_id).turn_id == turn_id


def test_what_a_crash_left_half_written_of_a_base_goes(hand, today):
    hand.store.record_base("pocket", "a" * 64, {"q_proj": (6, 4)})
    hand.store._blobs.write(f"bases/.new-{'a' * 32}", b"torn")
    today.now += 7200
    assert hand.store.sweep().num_removed == 1
    assert hand.store.base_modules("a" * 64) == {"q_proj": (6, 4)}
