"""Many threads and two processes on one store: nothing is lost, nothing happens twice."""

import random
import subprocess
import sys
import threading

import pytest

from adapters_store.errors import HeadMoved


def together(*jobs):
    """Run jobs in threads that start at once; raise the first error."""
    errors, gate = [], threading.Barrier(len(jobs))

    def run(job):
        try:
            gate.wait()
            job()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@pytest.mark.slow  # 1,600 submissions, each durable
def test_eight_threads_submit_with_duplicates_and_every_turn_is_queued_once(hand):
    users = [hand.user(f"user {number}") for number in range(8)]
    turns = [(user.user_id, hand.turn(user)) for user in users for _ in range(25)]
    queued, lock, writer = [], threading.Lock(), hand.store._writer
    writes, commits = writer.num_writes, writer.num_commits

    def submit(seed):
        rng = random.Random(seed)
        for number in range(200):
            user_id, turn_id = rng.choice(turns)
            made = hand.store.queue_follow_up(user_id, turn_id, f"r-{seed}-{number}", "hm", max_queued=1000)
            if made.outcome == "queued":
                with lock:
                    queued.append(turn_id)

    together(*(lambda seed=seed: submit(seed) for seed in range(8)))
    assert len(queued) == len(set(queued)) >= 150
    rows = [update.turn_id for user in users for update in hand.store.updates(user.user_id, limit=1000)]
    assert sorted(rows) == sorted(queued)
    assert len(list(follow_ups(hand, users))) == len(queued), "the texts of duplicates are gone again"
    assert writer.num_commits - commits < writer.num_writes - writes, "writes share commits"


def follow_ups(hand, users):
    for user in users:
        yield from hand.store._blobs.children(f"users/{user.user_id}/follow_ups")


def test_group_commit_groups_under_load(local):
    user = local.user()
    writer = local.store._writer
    writes, commits = writer.num_writes, writer.num_commits
    together(*(lambda: [local.turn(user) for _ in range(10)] for _ in range(8)))
    assert writer.num_writes - writes == 80
    assert writer.num_commits - commits <= 60
    assert local.store.get_user(user.user_id).num_turns == 80


def test_publishers_race_and_one_wins_each_round(hand):
    user = hand.user()
    results, lock = [], threading.Lock()

    def race(parent):
        try:
            version = hand.publish(user, parent=parent)
            with lock:
                results.append(version.number)
        except HeadMoved:
            pass

    parent = None
    for _ in range(3):
        results.clear()
        together(*(lambda parent=parent: race(parent) for _ in range(4)))
        assert len(results) == 1
        parent = results[0]
    versions = hand.store.versions(user.user_id)
    assert [version.parent for version in versions] == [version.number for version in versions[1:]] + [None]
    for version in versions:
        hand.store.verify(version)


def test_readers_see_whole_versions_while_others_publish(hand):
    user = hand.user()
    hand.publish(user)
    stop = threading.Event()

    def read():
        while not stop.is_set():
            hand.store.verify(hand.store.head(user.user_id, hand.base))

    def write():
        try:
            for _ in range(12):
                hand.publish(user)
        finally:
            stop.set()

    together(write, read, read)


def test_two_processes_share_one_store(open_hand, clock):
    """Two open stores on one SQLite file: both record and queue, one trains."""
    first, second = open_hand(), open_hand()
    user = first.user()
    assert second.user() == user
    together(
        lambda: [first.queue(user, max_queued=100) for _ in range(15)],
        lambda: [second.queue(user, max_queued=100) for _ in range(15)],
    )
    assert first.store.status().pending_updates == 30
    counter = second.store.change_counter()
    (claimed,) = first.claim("a")
    assert not second.store.acquire_lease("b", 60)
    version = first.publish(user, update_id=claimed.update_id)
    assert second.store.change_counter() > counter
    assert second.store.head(user.user_id, second.base) == version
    assert second.store.outcome(claimed.request_id) == "applied"


def test_opening_a_home_once_more_takes_no_lock_away(open_hand, monkeypatch):
    """POSIX drops all locks of a process on a file when the process closes that file, however it had opened it."""
    monkeypatch.setattr("adapters_store.database.journal_mode", lambda version: "delete")
    hand = open_hand()
    connect = f"sqlite3.connect({str(hand.home / 'index.sqlite')!r}, timeout=0, isolation_level=None)"
    program = f"import sqlite3; {connect}.execute('BEGIN IMMEDIATE')"
    with hand.store._database.writing.begin():
        open_hand()
        other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "database is locked" in other.stderr


def test_turns_cannot_be_claimed_twice_by_threads(local):
    users = [local.user(f"user {number}") for number in range(6)]
    for user in users:
        local.queue(user)
    claimed, lock = [], threading.Lock()
    assert local.store.acquire_lease("me", 60)

    def claim():
        found = local.store.claim_updates("me", 2, local.base)
        with lock:
            claimed.extend(one.update_id for one in found)

    together(*(claim for _ in range(6)))
    assert len(claimed) == len(set(claimed)) == 6
