"""Processes that die in the middle of a publish: the store is whole afterwards, whatever the moment."""

import os
import random
import signal
import time

import pytest

from adapters_store import crash
from adapters_store.types import User


def in_child(work) -> int:
    """Run ``work`` in a forked process that may die in it; return its wait status."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            os._exit(70)
    return os.waitpid(child, 0)[1]


def die(name: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def points_of(open_hand, act):
    """Return the names of all points that ``act`` passes, in their order."""
    hand = open_hand()
    passed = []
    crash.hook = passed.append
    try:
        act(hand)
    finally:
        crash.hook = None
        hand.store.close()
    return passed


def publish(hand):
    user = hand.user()
    (claimed,) = hand.claim(f"process {time.monotonic_ns()}")
    hand.publish(user, update_id=claimed.update_id)


def die_at(open_hand, index, act):
    """Run ``act`` in a child that is killed at the ``index``-th point that it passes."""

    def work():
        hand, passed = open_hand(), []

        def hook(name):
            passed.append(name)
            if len(passed) == index + 1:
                die(name)

        crash.hook = hook
        act(hand)

    return in_child(work)


def check_whole(hand, user: User):
    """A version exists if and only if its row is committed; each is complete; orphans can be swept."""
    versions = hand.store.versions(user.user_id)
    for version in versions:
        hand.store.verify(version)
        assert version.name in {path.name for path in hand.home.rglob("versions/*")}
    numbers = [version.number for version in versions]
    assert len(set(numbers)) == len(numbers)
    head = hand.store.head(user.user_id, hand.base)
    assert head is None or head in versions
    hand.clock.now = max(hand.clock.now, time.time()) + 10 * 3600
    hand.store.sweep()
    left = {path.name for kind in ("versions", "moments") for path in hand.home.rglob(f"{kind}/*")}
    assert left == {version.name for version in versions}
    assert [path for path in (hand.home / "files" / "staging").rglob("*") if path.is_file()] == []
    assert [path for path in hand.home.rglob(".new-*")] == []
    return versions


@pytest.mark.slow  # a process for each of some twenty points
def test_killed_at_every_point_of_a_publish(open_hand, clock):
    hand = open_hand()
    user = hand.user()
    for _ in range(2):
        hand.queue(user)
    hand.store.close()
    points = points_of(open_hand, publish)
    assert {"publish.reserved", "publish.in_transaction", "publish.committed", "folder.renamed"} <= set(points)
    expected = 1
    for index, name in enumerate(points):
        clock.now += 3600  # the lease of the dead has run out
        hand = open_hand()
        hand.queue(user)
        hand.store.close()
        status = die_at(open_hand, index, publish)
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, name
        hand = open_hand()
        committed = len(hand.store.versions(user.user_id)) - expected
        assert committed == (1 if name == "publish.committed" else 0), name
        applied = [update for update in hand.store.updates(user.user_id) if update.outcome == "applied"]
        assert len(applied) == expected + committed, "version and outcome come together"
        expected += committed
        check_whole(hand, user)
        hand.store.close()
    hand = open_hand()
    clock.now += 30 * 3600
    hand.publish(user)
    numbers = [version.number for version in hand.store.versions(user.user_id)]
    assert numbers == [len(points) + 2, len(points) + 1, 1], "numbers of the dead are not used again"


def test_killed_between_rename_and_commit_then_trained_again_to_the_same_bytes(open_hand, clock):
    hand = open_hand()
    user = hand.user()
    hand.queue(user)
    hand.store.close()

    def publish_same(hand):
        (claimed,) = hand.claim(f"process {time.monotonic_ns()}")
        hand.publish(user, update_id=claimed.update_id, staged=hand.stage(user, 42))

    points = ["publish.before_commit"]

    def work():
        crash.hook = lambda name: die(name) if name in points else None
        publish_same(open_hand())

    assert os.WIFSIGNALED(in_child(work))
    clock.now += 61
    hand = open_hand()
    assert hand.store.versions(user.user_id) == []
    publish_same(hand)
    (version,) = hand.store.versions(user.user_id)
    assert version.number == 2
    check_whole(hand, user)


@pytest.mark.slow  # twenty-five processes that are killed from outside, each after up to 0.8 s
def test_killed_from_outside_at_any_time(open_hand):
    """The parent holds the acknowledgements: what was acknowledged is there, nothing is there twice."""
    rng = random.Random(7)
    hand = open_hand()
    user = hand.user()
    hand.store.close()
    acknowledged: list[int] = []
    for _ in range(25):
        acknowledged += publish_until_killed(open_hand, user, rng.random() * 0.8)
        assert acknowledged == sorted(set(acknowledged)), "no number twice"
    hand = open_hand()
    versions = check_whole(hand, user)
    numbers = [version.number for version in versions]
    assert acknowledged
    assert numbers[0] == hand.store.head(user.user_id, hand.base).number >= acknowledged[-1]
    newest = [number for number in acknowledged if number > numbers[9]] if len(numbers) > 9 else acknowledged
    assert set(newest) <= set(numbers), "acknowledged and within retention: still there"


def publish_until_killed(open_hand, user, after_s):
    """Let a child publish without end, kill it; return the numbers that it was told are committed."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            hand = open_hand()
            os.write(writer, b"0 ")
            while True:
                os.write(writer, b"%d " % hand.publish(user).number)
        finally:
            os._exit(70)
    os.close(writer)
    with os.fdopen(reader, "rb", buffering=0) as pipe:
        assert pipe.read(2) == b"0 "
        time.sleep(after_s)
        os.kill(child, signal.SIGKILL)
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1]), "killed, not failed"
        return [int(word) for word in pipe.read().split()]
