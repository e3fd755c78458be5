"""After ``forget`` no byte of the user is left: looked for in every file, byte by byte."""

import random
import threading
from contextlib import closing

import pytest
from sqlalchemy import select

from adapters_store import LocalBlobs, Store
from adapters_store.database import Database
from adapters_store.errors import Erased, NotFound, StorageUnavailable, StoreError
from adapters_store.migration import backup, migrate
from adapters_store.schema import MetaRow, UserRow
from adapters_store.sqlite import driver

CANARY = "CANARY-3f9c"
ZERO = "0" * 32


def live(hand, name, canary=CANARY):
    """Give a user everything that a user can have; return the user and the traces to look for."""
    user = hand.user(name)
    key = hand.store.user_key(user.user_id)
    hand.store.record_consent(user.user_id, True, "2026-01", "app")
    secret = hand.store.create_key("user", user.user_id, label=f"{canary} phone")[1]
    for number in range(3):
        hand.publish(user, staged=marked(hand, user, canary))
        turn_id = hand.turn(
            user,
            messages=(("user", f"{canary} ask {number}"),),
            reply_text=f"{canary} say",
            prefix_key="p",
            reply_key="k",
        )
        hand.store.queue_follow_up(user.user_id, turn_id, f"r-{number}", f"{canary} hm")
    hand.store.undo_last(user.user_id, hand.base)
    hand.queue(user, f"{canary} waits")
    marked(hand, user, canary)  # a version in the making
    return user, [canary.encode(), key, secret.encode(), key.hex().encode()]


def marked(hand, user, canary):
    staged = hand.stage(user)
    for name in ("adapter_model.safetensors", "optimizer.safetensors"):
        data = bytearray((staged / name).read_bytes())
        data[-16:] = canary.encode().ljust(16)[:16]
        (staged / name).write_bytes(data)
    return staged


def found(hand, traces):
    return [(path.name, trace) for path in hand.files() for trace in traces if trace in path.read_bytes()]


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_no_byte_is_left_anywhere(open_hand, monkeypatch, mode):
    monkeypatch.setattr("adapters_store.database.journal_mode", lambda version: mode)
    hand = open_hand()
    bystanders = [live(hand, f"bystander {number}", f"OTHER-{number}") for number in range(3)]
    user, traces = live(hand, "ann")
    assert len({trace for _, trace in found(hand, traces)}) >= 2, "the search finds what is there"
    receipt = hand.store.forget(user.user_id)
    assert (receipt.num_turns, receipt.num_versions, receipt.num_updates) == (4, 3, 4)
    assert receipt.num_bytes > 1000
    assert found(hand, traces) == [], "while the store is open, journal and WAL included"
    hand.store.close()
    assert found(hand, traces) == []
    assert [path for path in hand.home.rglob("*") if user.user_id in path.name] == []
    again = open_hand()
    for other, _ in bystanders:
        assert len(again.store.versions(other.user_id)) == 3
        assert again.store.get_user(other.user_id).num_turns == 4


def test_nothing_finds_the_user_any_more(hand):
    user, _ = live(hand, "ann")
    key, secret = hand.store.create_key("user", user.user_id)
    counter = hand.store.change_counter()
    hand.store.forget(user.user_id)
    store, user_id = hand.store, user.user_id
    assert store.get_user(user_id) is None and store.find_user("ann") is None and store.list_users() == []
    assert store.head(user_id, hand.base) is None and store.versions(user_id) == [] and store.updates(user_id) == []
    assert store.verify_key(secret) is None and key not in store.list_keys()
    assert store.find_turns_by_prefix(user_id, "p") == [] and store.outcome("r-1") is None
    assert store.change_counter() > counter and store.status().pending_updates == 0
    for call in (store.forget, store.user_key, store.stage):
        with pytest.raises(NotFound):
            call(user_id)


def test_whoever_comes_back_is_a_new_user(hand):
    first = hand.user("ann")
    hand.store.forget(first.user_id)
    second = hand.user("ann")
    assert second.user_id != first.user_id
    assert hand.publish(second).number == 1


def test_the_audit_log_keeps_a_tombstone_without_content(hand):
    user = hand.user("ann")
    hand.store.forget(user.user_id)
    entry = hand.store.audit_log(1)[0]
    assert (entry.action, entry.object_id, entry.detail) == ("user.forget", user.user_id, {})
    assert hand.store.audit_intact()


def test_late_jobs_bring_nothing_back(hand):
    user = hand.user("ann")
    update_id = hand.queue(user)
    hand.claim()
    staged = hand.stage(user)
    hand.store.forget(user.user_id)
    with pytest.raises(Erased):
        hand.publish(user, update_id=update_id, staged=staged)
    with pytest.raises(NotFound):
        hand.turn(user)
    with pytest.raises(NotFound):
        hand.store.queue_follow_up(user.user_id, ZERO, "r", "hm")
    with pytest.raises(NotFound):
        hand.store.finish_update(update_id, "failed")
    hand.store.release_update(update_id)
    assert [blob for blob in hand.store._blobs.children(f"users/{user.user_id}/turns")] == []
    assert [blob for blob in hand.store._blobs.children(f"users/{user.user_id}/versions")] == []


@pytest.mark.parametrize(
    "point", ["publish.reserved", "publish.staged", "publish.folder_stored", "publish.before_commit"]
)
def test_a_publish_overtaken_by_forget_leaves_nothing(local, crash_hook, point):
    user = local.user("ann")
    local.publish(user)
    done = []

    def hook(name):
        if name == point and not done:
            done.append(name)
            local.store.forget(user.user_id)

    crash_hook(hook)
    with pytest.raises(StoreError):
        local.publish(user)
    assert done
    assert not any(path.is_file() for path in (local.home / "files").rglob("*"))


@pytest.mark.parametrize("point", ["forget.marked", "forget.files_deleted", "forget.rows_deleted"])
def test_a_crash_in_between_is_made_good_at_the_next_opening(open_hand, crash_hook, point):
    hand = open_hand()
    user, traces = live(hand, "ann")

    class Crash(BaseException):
        pass

    def hook(name):
        if name == point:
            raise Crash

    crash_hook(hook)
    with pytest.raises(Crash):
        hand.store.forget(user.user_id)
    assert hand.store.get_user(user.user_id) is None and hand.store.find_user("ann") is None
    assert [name for name, trace in found(hand, traces) if trace == traces[1]] == [], "the key dies first"
    crash_hook(lambda name: None)
    hand.store.close()
    again = open_hand()
    assert found(again, traces) == []
    assert [entry.action for entry in again.store.audit_log(1)] == ["user.forget"]
    assert again.store.audit_intact()


def test_files_that_resist_are_said_and_tried_again(local, monkeypatch, open_hand):
    user, traces = live(local, "ann")

    def refuse(key):
        raise StorageUnavailable("EIO")

    with monkeypatch.context() as patch:
        patch.setattr(local.store._blobs, "delete", refuse)
        with pytest.raises(StorageUnavailable):
            local.store.forget(user.user_id)
    assert local.store.get_user(user.user_id) is None
    again = open_hand()
    assert found(again, traces) == []


def test_a_log_that_is_being_read_is_said_and_its_traces_go_at_the_next_opening(open_hand, monkeypatch):
    monkeypatch.setattr("adapters_store.database.BUSY_TIMEOUT_MS", 50)
    monkeypatch.setattr("adapters_store.database.journal_mode", lambda version: "wal")
    hand = open_hand()
    user, traces = live(hand, "ann")
    reader = driver.connect(hand.home / "index.sqlite", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM meta").fetchone()
    with pytest.raises(StorageUnavailable):
        hand.store.forget(user.user_id)
    assert hand.store.get_user(user.user_id) is None
    reader.close()
    assert found(open_hand(), traces) == []
    with open_hand().store._read() as session:
        assert session.get(MetaRow, "erase_traces").number == 0


def test_an_erasure_that_still_resists_does_not_keep_the_store_shut(local, open_hand, monkeypatch):
    user, _ = live(local, "ann")
    bystander = local.user("bob")

    def refuse(self, key):
        raise StorageUnavailable("EIO")

    with monkeypatch.context() as patch:
        patch.setattr("adapters_store.LocalBlobs.delete", refuse)
        with pytest.raises(StorageUnavailable):
            local.store.forget(user.user_id)
        again = open_hand()
        assert again.store.get_user(user.user_id) is None
        assert again.store.get_user(bystander.user_id) == bystander


def test_an_erasure_that_resists_keeps_no_other_back(local, open_hand, monkeypatch):
    users = [local.user(name) for name in ("ann", "bob", "eve")]
    resisting, real = [user.user_id for user in users], LocalBlobs.delete

    def delete(self, key):
        if key.rpartition("/")[2] in resisting:
            raise StorageUnavailable("EIO")
        return real(self, key)

    monkeypatch.setattr("adapters_store.LocalBlobs.delete", delete)
    for user in users:
        with pytest.raises(StorageUnavailable):
            local.store.forget(user.user_id)
    del resisting[1:]
    with open_hand().store._read() as session:
        assert list(session.scalars(select(UserRow.user_id))) == resisting
        assert session.get(MetaRow, "erase_traces").number == 0, "traces went, whatever resists"


def test_rows_that_go_while_traces_are_erased_stay_marked(open_hand, monkeypatch):
    one, two = open_hand(), open_hand()
    ann, bob = one.user("ann"), one.user("bob")
    real = one.store._database.erase_traces

    def erase_traces():
        real()
        two.store._write(lambda session: two.store._delete_rows(session, bob.user_id))  # and its process dies here

    monkeypatch.setattr(one.store._database, "erase_traces", erase_traces)
    one.store.forget(ann.user_id)
    with two.store._read() as session:
        assert session.get(MetaRow, "erase_traces").number != 0


def copy_of(hand, revision="0001"):
    copy = hand.home / f"index.sqlite.backup-{revision}"
    backup(hand.home / "index.sqlite", copy)
    return copy


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_copy_is_scrubbed_after_a_kill_in_the_middle(local, mode):
    user, traces = live(local, "ann")
    copy = copy_of(local)
    with closing(driver.connect(copy, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA journal_mode={mode}")
        connection.execute("BEGIN")
        connection.execute("DELETE FROM turns")
        left = {path: path.read_bytes() for path in local.home.glob(f"{copy.name}*")}
    assert len(left) > 1, "a journal lies beside it"
    for path, data in left.items():
        path.write_bytes(data)
    local.store.forget(user.user_id)
    assert found(local, traces) == []
    assert list(local.home.glob("*backup*")) == [copy]


def test_a_copy_with_a_log_that_another_erasure_has_open_is_scrubbed(local):
    user, traces = live(local, "ann")
    with closing(driver.connect(copy_of(local), isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode=WAL")
        assert other.execute("SELECT count(*) FROM users").fetchone() == (1,)
        local.store.forget(user.user_id)
        assert other.execute("SELECT count(*) FROM users").fetchone() == (0,)
    assert found(local, traces) == []


def test_what_is_no_database_hinders_no_erasure_and_is_named(local, caplog):
    user, traces = live(local, "ann")
    (local.home / "index.sqlite.backup-0001.gz").write_bytes(b"\x1f\x8b archive")
    (local.home / "index.sqlite.backup-0002-wal").write_bytes(b"the copy itself was deleted")
    (local.home / "index.sqlite.backup-old").mkdir()
    local.store.forget(user.user_id)
    assert found(local, traces) == []
    assert all(name in caplog.text for name in ("backup-0001.gz", "backup-0002-wal", "backup-old"))


def test_a_damaged_copy_is_said_and_the_others_are_scrubbed(local, open_hand):
    user, traces = live(local, "ann")
    damaged, sound = copy_of(local, "0001"), copy_of(local, "0002")
    damaged.write_bytes(damaged.read_bytes()[:100] + b"\xff" * 8000)
    with pytest.raises(StorageUnavailable, match=damaged.name):
        local.store.forget(user.user_id)
    assert sound.name not in [name for name, _ in found(local, traces)]
    damaged.unlink()
    assert found(open_hand(), traces) == []


def test_copies_made_by_upgrades_are_scrubbed(tmp_path, open_hand, clock):
    path = tmp_path / "home" / "index.sqlite"
    database = Database(f"sqlite:///{path}")
    migrate(database, to="0001")
    database.close()
    key = bytes(range(200, 232))
    with driver.connect(path) as connection:
        for user_id, secret in (("a" * 32, key), ("b" * 32, b"k" * 32)):
            values = (user_id, user_id, secret, 1.0, "active", None, 0, False, 0, 0, 0, 0)
            connection.execute(f"INSERT INTO users VALUES ({','.join('?' * 12)})", values)
    connection.close()
    hand = open_hand()
    assert [name for name, _ in found(hand, [key])] == ["index.sqlite", "index.sqlite.backup-0001"]
    hand.store.forget("a" * 32)
    assert found(hand, [key]) == []
    copy = driver.connect(path.with_name("index.sqlite.backup-0001"))
    assert copy.execute("SELECT user_id FROM users").fetchall() == [("b" * 32,)]
    copy.close()


def test_forgetting_while_turns_and_updates_pour_in(open_hand):
    hand = open_hand()
    user = hand.user("ann")
    stop, errors = threading.Event(), []

    def pour():
        while not stop.is_set():
            try:
                turn_id = hand.turn(user, reply_text=CANARY)
                hand.store.queue_follow_up(user.user_id, turn_id, "r", CANARY)
            except NotFound:
                return
            except Exception as error:
                errors.append(error)
                return

    threads = [threading.Thread(target=pour) for _ in range(4)]
    for thread in threads:
        thread.start()
    while hand.store.get_user(user.user_id).num_turns < 8:
        pass
    hand.store.forget(user.user_id)
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert found(hand, [CANARY.encode()]) == []


def test_readers_of_another_process_do_not_hinder(open_hand):
    first, second = open_hand(), open_hand()
    user, traces = live(first, "ann")
    second.store.load_turn(second.store.find_turns_by_prefix(user.user_id, "p")[0].turn_id)
    first.store.forget(user.user_id)
    assert isinstance(second.store, Store) and second.store.get_user(user.user_id) is None
    assert found(first, traces) == []


@pytest.mark.parametrize("erased", [False, True])
def test_copies_in_free_space_go_only_with_the_file_written_anew(tmp_path, erased):
    """Rows come, grow, move between pages and go: ``secure_delete`` alone leaves copies of cells that were moved."""
    path = tmp_path / "churn.sqlite"
    database = Database(f"sqlite:///{path}")
    with database.writing.begin() as connection:
        gone = churn(connection.exec_driver_sql)
    if erased:
        database.erase_traces()
    data = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    left = [row for row in gone if row[0].encode() in data or row[1].encode() in data or row[2] in data]
    assert len(gone) > 1000
    assert bool(left) != erased
    database.close()


def churn(execute):
    execute("CREATE TABLE users (id TEXT PRIMARY KEY, hash TEXT UNIQUE, key BLOB, filling TEXT)")
    rng, here, gone = random.Random(1), [], []
    for _ in range(6000):
        move = rng.random()
        if move < 0.5 or not here:
            row = (rng.randbytes(16).hex(), rng.randbytes(32).hex(), rng.randbytes(32))
            here.append(row)
            execute("INSERT INTO users VALUES (?, ?, ?, ?)", (*row, "x" * rng.randrange(200)))
        elif move < 0.8:
            execute("UPDATE users SET filling = ? WHERE id = ?", ("y" * rng.randrange(300), rng.choice(here)[0]))
        else:
            gone.append(here.pop(rng.randrange(len(here))))
            execute("DELETE FROM users WHERE id = ?", (gone[-1][0],))
    return gone
