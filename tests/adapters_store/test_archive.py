import json
import shutil
import zipfile

import pytest

from adapters_store import Limits
from adapters_store.errors import InvalidValue, NotFound, StoreFull


@pytest.fixture
def exported(hand, tmp_path):
    user = hand.user("ann")
    hand.store.record_consent(user.user_id, True, "2026-01", "app")
    first = hand.turn(user, messages=(("user", "grüß \ud83d dich"),))
    second = hand.turn(user, parent_turn_id=first, prompt_ids=(1, 2, 3, 4, 5, 6, 7, 8))
    update_id = hand.store.queue_follow_up(user.user_id, first, "r", "kürzer").update_id
    hand.claim()
    hand.publish(user, update_id=update_id)
    hand.publish(user)
    target = tmp_path / "ann.zip"
    hand.store.export_user(user.user_id, target)
    return hand, user, target, (first, second)


def test_everything_is_in_it(exported):
    hand, user, target, (first, second) = exported
    with zipfile.ZipFile(target) as archive:
        read = lambda name: json.loads(archive.read(name).decode("utf-8", "surrogatepass"))  # noqa: E731
        about = read("user.json")
        assert (about["user_id"], about["consent"], about["heads"]) == (user.user_id, True, {hand.base: 2})
        assert [line["action"] for line in about["audit"]] == ["user.consent"]
        assert about["consents"][0]["text_version"] == "2026-01"
        assert "key" not in about and "external_hash" not in about
        assert read(f"turns/{first}.json")["messages"] == [["user", "grüß \ud83d dich"]]
        assert read(f"turns/{first}.json")["follow_up"] == "kürzer"
        assert read(f"turns/{second}.json")["prompt_ids"] == [1, 2, 3, 4, 5, 6, 7, 8]
        assert [one["outcome"] for one in read("updates.json")] == ["applied"]
        assert [one["number"] for one in read("versions.json")] == [2, 1]
    assert target.stat().st_mode & 0o077 == 0


def test_a_version_comes_back_with_its_digest(exported, tmp_path):
    hand, user, target, _ = exported
    head = hand.store.head(user.user_id, hand.base)
    with zipfile.ZipFile(target) as archive:
        archive.extractall(tmp_path / "unpacked")
    other = hand.user("bob")
    version = hand.store.import_version(other.user_id, tmp_path / "unpacked" / "versions" / head.name, hand.base)
    assert version.digest == head.digest


def test_nothing_of_others_is_in_it(hand, tmp_path):
    ann, bob = hand.user("ann"), hand.user("bob")
    hand.turn(bob, reply_text="CANARY-BOB")
    version = hand.publish(bob)
    hand.store.export_user(ann.user_id, tmp_path / "ann.zip")
    with zipfile.ZipFile(tmp_path / "ann.zip") as archive:
        content = b"".join(archive.read(name) for name in archive.namelist())
    assert b"CANARY" not in content and bob.user_id.encode() not in content
    assert version.digest.encode() not in content


def test_refusals(local, tmp_path, monkeypatch):
    user = local.user()
    target = tmp_path / "out.zip"
    with pytest.raises(NotFound):
        local.store.export_user("0" * 32, target)
    target.write_text("mine")
    with pytest.raises(InvalidValue, match="exist"):
        local.store.export_user(user.user_id, target)
    assert target.read_text() == "mine"


def test_a_full_disk_leaves_no_file(local, tmp_path, monkeypatch):
    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("adapters_store.archive.sync_file", full)
    (tmp_path / "out").mkdir()
    with pytest.raises(StoreFull):
        local.store.export_user(local.user().user_id, tmp_path / "out" / "a.zip")
    assert list((tmp_path / "out").iterdir()) == []


def meanwhile(monkeypatch, hand, act):
    """Let something happen between the listing of the versions and the look at the first one's files."""
    real = hand.store.path

    def path(version):
        monkeypatch.setattr(hand.store, "path", real)
        act()
        return real(version)

    monkeypatch.setattr(hand.store, "path", path)


def test_a_version_that_retention_takes_meanwhile_is_left_out(open_hand, tmp_path, monkeypatch):
    hand = open_hand(limits=Limits(keep_newest=1, keep_daily_days=0))
    user = hand.user()
    old, head = hand.publish(user), hand.publish(user)
    meanwhile(monkeypatch, hand, lambda: hand.publish(user))
    hand.store.export_user(user.user_id, tmp_path / "ann.zip")
    with pytest.raises(NotFound):
        hand.store.version(user.user_id, old.number)
    with zipfile.ZipFile(tmp_path / "ann.zip") as archive:
        folders = {name.split("/")[1] for name in archive.namelist() if name.startswith("versions/")}
    assert folders == {head.name}


def test_who_is_forgotten_meanwhile_is_not_exported(local, tmp_path, monkeypatch):
    user = local.user()
    local.publish(user)
    meanwhile(monkeypatch, local, lambda: local.store.forget(user.user_id))
    with pytest.raises(NotFound):
        local.store.export_user(user.user_id, tmp_path / "ann.zip")
    assert list(tmp_path.glob("ann.zip*")) == []


def test_a_version_that_has_lost_its_files_is_not_passed_over(local, tmp_path):
    user = local.user()
    shutil.rmtree(local.store.path(local.publish(user)))
    with pytest.raises(NotFound):
        local.store.export_user(user.user_id, tmp_path / "ann.zip")
