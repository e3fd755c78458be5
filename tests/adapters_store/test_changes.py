"""Whose heads have moved since a number: exact, in order, bounded, and honest where it cannot be known."""

import threading

import pytest
from sqlalchemy import event, func, select

from adapters_store import changes
from adapters_store.database import Database
from adapters_store.migration import migrate
from adapters_store.schema import HeadMoveRow


def since(hand, number):
    moves = hand.store.heads_moved_since(number)
    assert moves.number == hand.store.change_counter()
    return moves.user_ids


def kept(hand):
    with hand.store._read() as session:
        return session.scalar(select(func.count()).select_from(HeadMoveRow))


def test_every_move_of_a_head_names_its_user(hand):
    ann, bob = hand.user("ann").user_id, hand.user("bob").user_id
    moves = {
        "publish": lambda: hand.publish(hand.user("ann")),
        "publish again": lambda: hand.publish(hand.user("ann")),
        "rollback": lambda: hand.store.rollback(ann, 1),
        "undo_to": lambda: hand.store.undo_to(ann, hand.base, 1, 2),
        "undo_last": lambda: hand.store.undo_last(ann, hand.base),
        "reset": lambda: hand.store.reset(ann, hand.base),
        "forget": lambda: hand.store.forget(ann),
    }
    for name, move in moves.items():
        number = hand.store.change_counter()
        assert since(hand, number) == frozenset()
        move()
        assert since(hand, number) == {ann}, name
    hand.publish(hand.user("bob"))
    assert since(hand, 0) == {ann, bob}


def test_what_moves_no_head_leaves_no_row(hand):
    user = hand.user()
    hand.publish(user)
    number = hand.store.change_counter()
    hand.turn(user)
    hand.store.pin(user.user_id, 1, True)
    assert hand.store.heads_moved_since(number) == changes.HeadMoves(number, frozenset())


def test_a_move_of_the_population_adapter_concerns_everybody(hand):
    owner = hand.store.ensure_population_owner()
    number = hand.store.change_counter()
    hand.publish(owner)
    assert since(hand, number) is None
    number = hand.store.change_counter()
    hand.store.remove_populations()
    assert since(hand, number) is None


def test_the_log_is_bounded_and_says_when_it_does_not_know(hand, monkeypatch):
    monkeypatch.setattr(changes, "KEPT_MOVES", 6)
    monkeypatch.setattr(changes, "PRUNE_EVERY", 4)
    user = hand.user()
    for _ in range(20):
        hand.store.reset(user.user_id, hand.base)
        assert kept(hand) < 6 + 4
    assert since(hand, 14) == {user.user_id}
    assert since(hand, 13) is None and since(hand, 0) is None
    assert since(hand, 20) == frozenset()
    assert since(hand, 21) is None, "a counter that went back: another database"


def test_a_move_that_left_no_row_is_noticed(local):
    """As of a process with older code on the same file."""
    user = local.user()
    local.publish(user)
    with local.store._database.writing.begin() as connection:
        connection.exec_driver_sql("UPDATE meta SET number = number + 1 WHERE name = 'changes'")
    assert since(local, 1) is None
    local.publish(user)
    assert since(local, 1) is None and since(local, 2) == {user.user_id}


def test_a_store_from_before_the_log_knows_nothing_of_the_time_before(tmp_path, open_hand):
    database = Database(f"sqlite:///{tmp_path / 'home' / 'index.sqlite'}")
    migrate(database, to="0003")
    with database.writing.begin() as connection:
        connection.exec_driver_sql("UPDATE meta SET number = 41 WHERE name = 'changes'")
    database.close()
    hand = open_hand()
    assert since(hand, 40) is None and since(hand, 41) == frozenset()
    user = hand.user()
    hand.publish(user)
    assert since(hand, 41) == {user.user_id} and since(hand, 40) is None


def test_a_move_that_is_taken_back_is_not_counted(local, crash_hook):
    user = local.user()
    number = local.store.change_counter()

    def hook(name):
        if name == "publish.in_transaction":
            raise RuntimeError("cut here")

    crash_hook(hook)
    with pytest.raises(RuntimeError, match="cut here"):
        local.publish(user)
    assert local.store.heads_moved_since(number) == changes.HeadMoves(number, frozenset())


def test_the_question_is_one_indexed_query(local):
    local.publish(local.user())
    number, seen = local.store.change_counter(), []
    engine = local.store._database.reading
    event.listen(engine, "before_cursor_execute", lambda c, cursor, sql, values, *rest: seen.append((sql, values)))
    local.store.heads_moved_since(number)
    assert len(seen) == 1
    with engine.connect() as connection:
        plan = [str(row) for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {seen[0][0]}", seen[0][1])]
    assert sum("SEARCH" in step for step in plan) == 3, plan
    assert not any("SCAN" in step for step in plan), plan


def test_two_stores_see_each_others_moves_while_many_publish(open_hand):
    """What one store reads step by step is everything that happened: nothing is skipped, and no gap is ever seen."""
    hands = (open_hand(), open_hand())
    users = [hands[0].user(f"user {number}") for number in range(4)]
    errors, num_each = [], 6

    def publish(hand, user):
        try:
            for _ in range(num_each):
                hand.publish(user)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=publish, args=(hands[n % 2], user)) for n, user in enumerate(users)]
    for thread in threads:
        thread.start()
    number, told = 0, set()
    while number < num_each * len(users) and not errors:
        moves = hands[1].store.heads_moved_since(number)
        assert moves.user_ids is not None and len(moves.user_ids) <= moves.number - number
        told |= moves.user_ids
        number = moves.number
    for thread in threads:
        thread.join()
    assert not errors and told == {user.user_id for user in users}
    assert hands[0].store.heads_moved_since(number) == changes.HeadMoves(number, frozenset())
