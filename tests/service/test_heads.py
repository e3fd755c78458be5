"""The map of heads: always right at the next look, and nobody goes cold because of somebody else."""

import threading

import pytest

from adapters_store import LocalBlobs, Store, changes
from personalize.backends.echo import write_folder
from personalize.service.heads import Heads

BASE = "b" * 64


@pytest.fixture
def open_store(tmp_path):
    opened = []

    def make():
        opened.append(Store.open(f"sqlite:///{tmp_path / 'index.sqlite'}", LocalBlobs(tmp_path)))
        return opened[-1]

    yield make
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store):
    return open_store()


def publish(store, user_id):
    head = store.head(user_id, BASE)
    folder = store.stage(user_id)
    write_folder(folder, "seed")
    return store.publish(
        folder, user_id=user_id, base_digest=BASE, parent=head.number if head else None, epoch=0, update_id=None,
        state={}, metrics={},
    )  # fmt: skip


def users(store, count):
    """Users with two versions each."""
    made = [store.ensure_user(f"user {number}").user_id for number in range(count)]
    for user_id in made * 2:
        publish(store, user_id)
    return made


class Reads:
    """Counts how often the store was asked for a head, and by whom; ``during`` runs between that read and its use."""

    def __init__(self, store, monkeypatch):
        self.user_ids, self.during = [], lambda: None
        real = store.head

        def head(user_id, base_digest):
            found = real(user_id, base_digest)
            self.user_ids.append(user_id)
            self.during()
            return found

        monkeypatch.setattr(store, "head", head)


def test_each_kind_of_move_is_seen_at_once_and_costs_the_others_nothing(store, monkeypatch):
    ann, bob = users(store, 2)
    heads, reads = Heads(store, BASE), Reads(store, monkeypatch)

    def numbers():
        return [found and found.number for found in (heads.current(ann), heads.current(bob))]

    assert numbers() == numbers() == [2, 2] and reads.user_ids == [ann, bob]
    moves = (
        (lambda: publish(store, ann), 3),
        (lambda: store.rollback(ann, 1), 1),
        (lambda: store.rollback(ann, 3), 3),
        (lambda: store.undo_last(ann, BASE), 2),
        (lambda: store.reset(ann, BASE), None),
        (lambda: store.rollback(ann, 2), 2),
        (lambda: store.forget(ann), None),
    )
    for move, expected in moves:
        move()
        reads.user_ids.clear()
        assert numbers() == numbers() == [expected, 2]
        assert reads.user_ids == [ann], "bob's entry was looked up again"


def test_what_another_process_moves_is_seen_by_the_next_request(open_store, monkeypatch):
    store, other = open_store(), open_store()
    ann, bob = users(store, 2)
    heads, reads = Heads(store, BASE), Reads(store, monkeypatch)
    for _ in range(2):
        assert heads.current(ann).number == heads.current(bob).number == 2
    for number in (3, 4, 5):
        publish(other, ann)
        assert heads.current(bob).number == 2 and heads.current(ann).number == number
    other.rollback(ann, 1)
    assert heads.current(ann).number == 1
    assert reads.user_ids.count(bob) == 1


def test_who_missed_more_than_the_log_keeps_begins_anew(store, monkeypatch):
    monkeypatch.setattr(changes, "KEPT_MOVES", 4)
    monkeypatch.setattr(changes, "PRUNE_EVERY", 1)
    ann, bob = users(store, 2)
    heads, reads = Heads(store, BASE), Reads(store, monkeypatch)
    assert heads.current(ann).number == heads.current(bob).number == 2
    for _ in range(6):
        store.rollback(ann, 1)
    assert heads.current(bob).number == 2 and heads.current(ann).number == 1
    assert reads.user_ids == [ann, bob, bob, ann]


def test_the_least_recently_served_go_first(store, monkeypatch):
    made = users(store, 4)
    heads, reads = Heads(store, BASE, max_entries=3), Reads(store, monkeypatch)
    for user_id in (*made[:3], made[0], made[3]):
        assert heads.current(user_id).number == 2
    reads.user_ids.clear()
    for user_id in (made[0], made[2], made[3], made[1]):
        assert heads.current(user_id).number == 2
    assert reads.user_ids == [made[1]] and len(heads._versions) == 3


def test_a_head_that_moves_while_it_is_read_is_not_kept(store, monkeypatch):
    """The read has the old head in hand while the move and another thread's look at it happen."""
    ann, bob = users(store, 2)
    heads, reads = Heads(store, BASE), Reads(store, monkeypatch)

    def moved_meanwhile():
        reads.during = lambda: None
        publish(store, ann)
        assert heads.current(bob).number == 2  # brings the map up to the move, and past it

    reads.during = moved_meanwhile
    assert heads.current(ann).number == 2
    assert heads.current(ann).number == 3


def test_an_answer_that_comes_late_takes_nothing_back(store, monkeypatch):
    """A thread that has asked what moved, and is overtaken by one that has asked later."""
    ann, bob = users(store, 2)
    heads = Heads(store, BASE)
    assert heads.current(ann).number == heads.current(bob).number == 2
    real, held = store.heads_moved_since, []

    def slow(number):
        moves = real(number)
        if not held:
            held.append(moves)
            store.rollback(ann, 1)
            assert heads.current(ann).number == 1
        return moves

    monkeypatch.setattr(store, "heads_moved_since", slow)
    assert heads.current(bob).number == 2
    reads = Reads(store, monkeypatch)
    assert heads.current(ann).number == 1 and reads.user_ids == [], "it was known already"


def test_a_database_put_in_the_others_place_is_noticed(store, monkeypatch):
    (ann,) = users(store, 1)
    heads = Heads(store, BASE)
    assert heads.current(ann).number == 2
    store.rollback(ann, 1)  # not asked since
    with store._database.writing.begin() as connection:
        connection.exec_driver_sql("UPDATE meta SET number = 1 WHERE name = 'changes'")
    assert heads.current(ann).number == 1


def test_a_population_adapter_reaches_everybody_who_has_not_begun(store):
    new, begun = store.ensure_user("new").user_id, users(store, 1)[0]
    heads = Heads(store, BASE, population=True)
    assert heads.current(new) is None and heads.current(begun).number == 2
    owner = store.ensure_population_owner().user_id
    for number in (1, 2):
        version = publish(store, owner)
        assert version.number == number and heads.current(new) == heads.of_newcomers() == version
        assert heads.current(begun).user_id == begun
    store.remove_populations()
    assert heads.current(new) is None and heads.current(begun).number == 2


def test_no_look_is_older_than_a_publish_before_it(open_store):
    """Threads that look while two stores publish: what was committed when a look began is the least that it finds."""
    stores = (open_store(), open_store())
    made, num_publishes = users(stores[0], 4), 4
    heads, committed = Heads(stores[0], BASE), dict.fromkeys(made, 2)
    done, errors = threading.Event(), []

    def publishing(store, user_id):
        for _ in range(num_publishes):
            committed[user_id] = publish(store, user_id).number

    def looking():
        while not done.is_set():
            for user_id in made:
                least = committed[user_id]
                assert heads.current(user_id).number >= least

    def run(work, *words):
        try:
            work(*words)
        except BaseException as error:
            errors.append(error)

    publishers = [
        threading.Thread(target=run, args=(publishing, stores[number % 2], user_id))
        for number, user_id in enumerate(made)
    ]
    lookers = [threading.Thread(target=run, args=(looking,)) for _ in range(3)]
    for thread in (*publishers, *lookers):
        thread.start()
    for thread in publishers:
        thread.join()
    done.set()
    for thread in lookers:
        thread.join()
    assert not errors
    assert [heads.current(user_id).number for user_id in made] == [2 + num_publishes] * 4
