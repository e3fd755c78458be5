import threading

import pytest
from sqlalchemy.exc import DBAPIError

from adapters_store.errors import InvalidValue


def test_lines_are_chained_and_read_newest_first(hand):
    for number in range(5):
        hand.store.audit("key-1", "user.view", f"object-{number}", {"n": number, "ok": True, "x": None, "f": 0.5})
    log = hand.store.audit_log(3)
    assert [entry.object_id for entry in log] == ["object-4", "object-3", "object-2"]
    assert [entry.number for entry in log] == [5, 4, 3]
    assert log[0].detail == {"n": 4, "ok": True, "x": None, "f": 0.5}
    assert len({entry.digest for entry in hand.store.audit_log()}) == 5
    assert hand.store.audit_intact()


@pytest.mark.parametrize("sql", ["UPDATE audit SET actor = 'nobody'", "DELETE FROM audit"])
def test_the_database_itself_refuses_changes(hand, sql):
    hand.store.audit("a", "b", "c")
    with pytest.raises(DBAPIError, match="append-only"), hand.store._database.writing.begin() as connection:
        connection.exec_driver_sql(sql)
    assert len(hand.store.audit_log()) == 1


@pytest.mark.parametrize("change", ["actor = 'nobody'", "created_s = 0", "detail = '{\"n\":2}'", "number = 7"])
def test_a_changed_line_is_noticed(local, change):
    for _ in range(3):
        local.store.audit("somebody", "user.view", "x", {"n": 1})
    assert local.store.audit_intact()
    with local.store._database.writing.begin() as connection:
        connection.exec_driver_sql("DROP TRIGGER audit_no_UPDATE")
        connection.exec_driver_sql(f"UPDATE audit SET {change} WHERE number = 2")
    assert not local.store.audit_intact()


def test_a_removed_line_is_noticed(local):
    for _ in range(3):
        local.store.audit("a", "b", "c")
    with local.store._database.writing.begin() as connection:
        connection.exec_driver_sql("DROP TRIGGER audit_no_DELETE")
        connection.exec_driver_sql("DELETE FROM audit WHERE number = 2")
    assert not local.store.audit_intact()


@pytest.mark.parametrize("detail", [{"x": "two words"}, {"x": "y" * 101}, {"x": ["a"]}, {"x": {"y": 1}}, {"x": b"z"}])
def test_content_is_refused(local, detail):
    with pytest.raises(InvalidValue, match="detail"):
        local.store.audit("a", "b", "c", detail)
    assert local.store.audit_log() == []


@pytest.mark.parametrize(
    ("actor", "action", "object_id"), [("", "b", "c"), ("a", "Not A Word", "c"), ("a", "b", "x" * 101)]
)
def test_names_are_short_words(local, actor, action, object_id):
    with pytest.raises(InvalidValue):
        local.store.audit(actor, action, object_id)


def test_two_processes_write_one_chain(url, clock, tmp_path):
    from adapters_store import LocalBlobs, Store

    stores = [Store.open(url, LocalBlobs(tmp_path / "files"), clock=clock) for _ in range(2)]
    work = [threading.Thread(target=lambda s=s: [s.audit("a", "b", "c") for _ in range(25)]) for s in stores]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert sorted(entry.number for entry in stores[0].audit_log(100)) == list(range(1, 51))
    assert stores[0].audit_intact()
    for store in stores:
        store.close()
