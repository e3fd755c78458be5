import threading

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.exc import DataError, OperationalError

from adapters_store.database import Database
from adapters_store.errors import StorageUnavailable, StoreClosed, StoreFull
from adapters_store.migration import migrate
from adapters_store.schema import MetaRow
from adapters_store.writer import Writer, storage_error


def add_one(session):
    session.execute(update(MetaRow).where(MetaRow.name == "changes").values(number=MetaRow.number + 1))


def test_waiting_writes_share_one_commit(local):
    writer, gate = local.store._writer, threading.Event()
    before = writer.num_commits
    threads = [threading.Thread(target=writer.run, args=(lambda session: gate.wait(10),))]
    threads += [threading.Thread(target=writer.run, args=(add_one,)) for _ in range(40)]
    threads[0].start()
    while not writer._jobs.empty():
        pass
    for thread in threads[1:]:
        thread.start()
    while writer._jobs.qsize() < 40:
        pass
    gate.set()
    for thread in threads:
        thread.join()
    assert writer.num_commits - before == 2
    assert local.store.change_counter() == 40


def test_one_that_raises_takes_nothing_else_back(hand):
    writer, gate, raised = hand.store._writer, threading.Event(), []

    def bad(session):
        add_one(session)
        session.flush()
        raise ValueError("mine alone")

    def duplicate(session):
        session.add(MetaRow(name="changes"))

    def run(work):
        try:
            writer.run(work)
        except Exception as error:
            raised.append(type(error).__name__)

    threads = [
        threading.Thread(target=run, args=(work,))
        for work in (lambda s: gate.wait(10), bad, add_one, duplicate, add_one)
    ]
    for thread in threads:
        thread.start()
    gate.set()
    for thread in threads:
        thread.join()
    assert sorted(raised) == ["IntegrityError", "ValueError"]
    assert hand.store.change_counter() == 2


def test_a_result_is_handed_out_only_after_the_commit(local):
    local.store._write(add_one)
    with local.store._read() as session:
        assert session.scalars(select(MetaRow.number).where(MetaRow.name == "changes")).one() == 1


def test_a_full_database_is_a_typed_error_and_reads_go_on(local):
    user = local.user()
    with local.store._database.writing.connect() as connection:
        raw = connection.connection.driver_connection
        pages = raw.execute("PRAGMA page_count").fetchone()[0]
        raw.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(StoreFull):
        for number in range(10_000):
            local.user(f"user {number}")
    assert local.store.get_user(user.user_id) == user
    with local.store._database.writing.connect() as connection:
        connection.connection.driver_connection.execute("PRAGMA max_page_count=1000000")
    assert local.user("after all").num_turns == 0


def test_a_broken_statement_fails_its_group_with_a_typed_error(local):
    with pytest.raises(StorageUnavailable):
        local.store._write(lambda session: session.execute(text("SELECT * FROM nowhere")))
    assert local.user()


def test_a_closed_store_says_so(local):
    local.store.close()
    local.store.close()
    with pytest.raises(StoreClosed):
        local.store._write(add_one)


def test_errors_that_are_no_database_errors_pass_unchanged():
    error = KeyError("x")
    assert storage_error(error) is error


def test_a_value_that_the_database_cannot_hold_fails_alone(hand):
    writer, gate, raised = hand.store._writer, threading.Event(), []

    def unfit(session):
        session.execute(text("SELECT CAST('x' AS INTEGER)"))  # an error of PostgreSQL's; SQLite takes everything
        raise DataError("SELECT", {}, ValueError("x"))

    def run(work):
        try:
            writer.run(work)
        except Exception as error:
            raised.append(type(error))

    works = (lambda session: gate.wait(10), add_one, unfit, add_one)
    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    threads[0].start()
    while not writer._jobs.empty():
        pass
    for thread in threads[1:]:
        thread.start()
    while writer._jobs.qsize() < 3:  # one commit
        pass
    gate.set()
    for thread in threads:
        thread.join()
    assert raised == [StorageUnavailable]
    assert hand.store.change_counter() == 2


class Deadlock(Exception):
    sqlstate = "40P01"


@pytest.mark.parametrize("num_deadlocks", [1, Writer.MAX_TRIES - 1])
def test_who_had_to_give_way_is_tried_again_though_alone(local, num_deadlocks):
    left = [OperationalError("UPDATE", {}, Deadlock())] * num_deadlocks

    def unlucky(session):
        add_one(session)
        if left:
            raise left.pop()

    local.store._write(unlucky)
    assert local.store.change_counter() == 1


def test_who_has_to_give_way_for_ever_is_told(local):
    tries = []

    def hopeless(session):
        tries.append(session)
        raise OperationalError("UPDATE", {}, Deadlock())

    with pytest.raises(StorageUnavailable, match="Deadlock"):
        local.store._write(hopeless)
    assert len(tries) == Writer.MAX_TRIES


def test_two_processes_that_wait_for_each_other_both_get_through(url):
    if url.startswith("sqlite"):
        pytest.skip("SQLite locks the whole file, before the first statement")
    databases = [Database(url), Database(url)]
    migrate(databases[0])
    writers, both = [Writer(database.writing) for database in databases], threading.Barrier(2)

    def crossed(*names):
        held = []

        def work(session):
            for name in names:
                session.execute(update(MetaRow).where(MetaRow.name == name).values(number=MetaRow.number + 1))
                if not held:
                    held.append(both.wait(10))

        return work

    works = crossed("changes", "erase_traces"), crossed("erase_traces", "changes")
    threads = [threading.Thread(target=writer.run, args=(work,)) for writer, work in zip(writers, works, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with databases[0].reading.connect() as connection:
        numbers = connection.execute(select(MetaRow.number).where(MetaRow.name.in_(("changes", "erase_traces"))))
        assert list(numbers.scalars()) == [2, 2]
    for writer, database in zip(writers, databases, strict=True):
        writer.close()
        database.close()
