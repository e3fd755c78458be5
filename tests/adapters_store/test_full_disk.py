"""Disk faults at every step of every writing call: a typed error, no torn state, and reads go on."""

import errno
import os

import pytest

from adapters_store.errors import StorageUnavailable, StoreFull

ERRORS = [(errno.ENOSPC, StoreFull), (errno.EIO, StorageUnavailable)]


class Fault:
    """Lets the k-th disk step fail, once or from then on."""

    def __init__(self, number, at, for_ever):
        self.number, self.at, self.for_ever, self.passed = number, at, for_ever, 0

    def __call__(self, name):
        if name.startswith(("file.", "folder.")):
            self.passed += 1
            if self.passed == self.at or (self.for_ever and self.passed > self.at):
                raise OSError(self.number, os.strerror(self.number))


def acts(hand, user, turn_id):
    return {
        "record_turn": lambda: hand.turn(user, parent_turn_id=turn_id),
        "queue_follow_up": lambda: hand.store.queue_follow_up(user.user_id, turn_id, "r", "hm"),
        "publish": lambda: hand.publish(user),
    }


@pytest.mark.parametrize("act", ["record_turn", "queue_follow_up", "publish"])
@pytest.mark.parametrize(("number", "error"), ERRORS)
@pytest.mark.parametrize("for_ever", [False, True])
def test_every_single_fault_is_clean(local, crash_hook, act, number, error, for_ever):
    user = local.user()
    turn_id, version = local.turn(user), local.publish(user)
    call = acts(local, user, turn_id)[act]
    failed = 0
    for at in range(1, 40):
        fault = Fault(number, at, for_ever)
        crash_hook(fault)
        before = snapshot(local, user)
        try:
            call()
        except error as raised:
            assert type(raised) is error
            failed += 1
        crash_hook(lambda name: None)
        if fault.passed < at:
            break
        assert snapshot(local, user) == before, f"step {at} left something"
        assert local.store.load_turn(turn_id).reply_text
        local.store.verify(local.store.head(user.user_id, local.base))
    else:
        pytest.fail("the loop must end with a call that met no fault")
    assert failed == at - 1 >= 3
    assert version in local.store.versions(user.user_id)


def snapshot(hand, user):
    """What readers see: rows, and the files that rows name."""
    found = hand.store.get_user(user.user_id)
    versions = hand.store.versions(user.user_id)
    return found, versions, hand.store.updates(user.user_id), hand.store.head(user.user_id, hand.base)


def test_on_a_full_disk_reads_go_on_and_learning_pauses(open_hand, crash_hook):
    hand = open_hand(disk_usage=lambda path: (100, 99, 1))
    assert hand.store.status().learning_paused_reason
    user = hand.user()
    turn_id, version = hand.turn(user), hand.publish(user)
    crash_hook(Fault(errno.ENOSPC, 1, True))
    with pytest.raises(StoreFull):
        hand.turn(user)
    with pytest.raises(StoreFull):
        hand.publish(user)
    assert hand.store.head(user.user_id, hand.base) == version
    assert hand.store.path(version).is_dir()
    assert hand.store.load_turn(turn_id).turn_id == turn_id
    assert hand.store.rollback(user.user_id, 1) == version
