import json
import os

import pytest

from adapters_store import Limits
from adapters_store.errors import (
    AdapterCorrupt,
    AdapterMismatch,
    Erased,
    HeadMoved,
    InvalidValue,
    NotFound,
    QuotaExceeded,
    UpdateClosed,
)
from adapters_store.folder import folder_digest


def test_a_published_folder_is_the_next_version_and_the_head(hand):
    user = hand.user()
    update_id = hand.queue(user)
    hand.claim()
    staged = hand.stage(user)
    version = hand.publish(user, update_id=update_id, staged=staged)
    assert (version.number, version.parent, version.rank, version.origin) == (1, None, 2, "update")
    assert version.name == f"u_{user.user_id}@1-{version.digest[:16]}"
    assert hand.store.head(user.user_id, hand.base) == version == hand.store.version(user.user_id, 1)
    assert hand.store.update(update_id).outcome == "applied"
    assert not staged.exists()
    folder = hand.store.path(version)
    assert folder.name == version.name
    assert sorted(os.listdir(folder)) == ["adapter_config.json", "adapter_model.safetensors", "manifest.json"]
    assert folder_digest(folder) == version.digest
    second = hand.publish(user)
    assert (second.number, second.parent) == (2, 1)
    assert hand.store.change_counter() == 2


def test_the_manifest_says_what_a_bare_folder_is(hand):
    version = hand.publish(hand.user())
    manifest = json.loads((hand.store.path(version) / "manifest.json").read_text())
    assert manifest == {
        "format": 1,
        "number": 1,
        "parent": None,
        "digest": version.digest,
        "base_digest": hand.base,
        "rank": 2,
        "created_s": version.created_s,
        "origin": "update",
        "moments_digest": version.moments_digest,
        "state": {"replay": ["t1"]},
    }


def test_moments_lie_beside_the_version_and_are_checked(hand):
    user = hand.user()
    version = hand.publish(user)
    moments = hand.store.moments_path(version)
    assert moments is not None and moments.parent != hand.store.path(version)
    moments.chmod(0o600)
    moments.write_bytes(moments.read_bytes()[:-1] + b"x")
    assert hand.store.moments_path(version) is None, "damaged moments are none"
    bare = hand.publish(user, staged=hand.stage(user, moments=False))
    assert bare.moments_digest is None and hand.store.moments_path(bare) is None
    hand.store.verify(bare)


def test_the_head_must_still_be_the_parent(hand):
    user = hand.user()
    first = hand.publish(user)
    for parent in (None, 7):
        with pytest.raises(HeadMoved):
            hand.publish(user, parent=parent)
    assert hand.store.versions(user.user_id) == [first]


def test_a_race_for_the_head_has_one_winner_and_numbers_stay_unique(hand):
    user = hand.user()
    publishing = hand.store._commit_version
    raced = []

    def overtaken(draft, *rest):
        if not raced:
            raced.append(draft)
            hand.publish(user, parent=None)
        return publishing(draft, *rest)

    hand.store._commit_version = overtaken
    with pytest.raises(HeadMoved):
        hand.publish(user, parent=None)
    (winner,) = hand.store.versions(user.user_id)
    assert (raced[0].number, winner.number) == (1, 2)
    with pytest.raises(NotFound):
        hand.store.path(raced[0])
    assert hand.store.moments_path(raced[0]) is None
    assert hand.publish(user).number == 3


def test_the_same_bytes_published_again_get_a_name_of_their_own(hand):
    user = hand.user()
    first, second = hand.publish(user, staged=hand.stage(user, 7)), hand.publish(user, staged=hand.stage(user, 7))
    assert first.digest == second.digest and first.name != second.name


def test_heads_belong_to_user_and_base(hand):
    ann, bob = hand.user("ann"), hand.user("bob")
    version = hand.publish(ann)
    assert hand.store.head(bob.user_id, hand.base) is None
    assert hand.store.head(ann.user_id, hand.other_base) is None
    assert hand.store.has_other_heads(ann.user_id, hand.other_base)
    assert not hand.store.has_other_heads(ann.user_id, hand.base)
    assert not hand.store.has_other_heads(bob.user_id, hand.base)
    other = hand.publish(ann, base=hand.other_base)
    assert (other.number, other.parent) == (2, None)
    assert hand.store.head(ann.user_id, hand.base) == version
    assert [one.number for one in hand.store.versions(ann.user_id, hand.other_base)] == [2]


def test_one_update_changes_no_other_users_bytes(hand):
    ann, bob = hand.user("ann"), hand.user("bob")
    version = hand.publish(ann)
    before = {path.name: path.read_bytes() for path in hand.store.path(version).iterdir()}
    for _ in range(3):
        hand.publish(bob)
    assert {path.name: path.read_bytes() for path in hand.store.path(version).iterdir()} == before
    hand.store.verify(version)


@pytest.mark.parametrize("missing", ["adapter_config.json", "adapter_model.safetensors"])
def test_an_incomplete_folder_is_refused_and_discarded(hand, missing):
    user = hand.user()
    staged = hand.stage(user)
    (staged / missing).unlink()
    with pytest.raises(AdapterCorrupt, match=missing):
        hand.publish(user, staged=staged)
    assert not staged.exists()
    assert hand.store.versions(user.user_id) == []


def test_hostile_moments_are_refused(hand):
    user = hand.user()
    staged = hand.stage(user)
    (staged / "optimizer.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(AdapterCorrupt, match="optimizer"):
        hand.publish(user, staged=staged)


def test_a_cancelled_update_is_not_published(hand):
    user = hand.user()
    hand.publish(user)
    hand.publish(user)
    update_id = hand.queue(user)
    (claimed,) = hand.claim()
    hand.store.rollback(user.user_id, 1)
    with pytest.raises(HeadMoved):
        hand.publish(user, update_id=update_id, parent=claimed.head.number)
    hand.store.rollback(user.user_id, 2)  # the head is the parent again; the update stays cancelled
    with pytest.raises(UpdateClosed):
        hand.publish(user, update_id=update_id, parent=2)
    assert hand.store.update(update_id).outcome == "cancelled_rollback"
    assert len(hand.store.versions(user.user_id)) == 2


def test_an_update_is_applied_once(hand):
    user = hand.user()
    update_id = hand.queue(user)
    hand.claim()
    hand.publish(user, update_id=update_id)
    with pytest.raises(UpdateClosed):
        hand.publish(user, update_id=update_id)
    assert hand.store.get_user(user.user_id).num_updates == 1
    assert len(hand.store.versions(user.user_id)) == 1


def test_another_epoch_is_refused(hand):
    user = hand.user()
    with pytest.raises(Erased):
        hand.publish(user, epoch=user.epoch + 1)
    staged = hand.stage(user)
    hand.store.forget(user.user_id)
    with pytest.raises(Erased):
        hand.publish(user, staged=staged)


@pytest.mark.parametrize("state", [{"x": object()}, {"x": float("nan")}, {"x": "y" * 20_000}])
def test_states_are_small_plain_values(local, state):
    user = local.user()
    with pytest.raises(InvalidValue, match="state"):
        local.publish(user, state=state)


def test_the_quota_of_versions_holds_for_pins(open_hand):
    hand = open_hand(limits=Limits(keep_newest=1, keep_daily_days=0, max_versions_per_user=4))
    user = hand.user()
    for _ in range(8):  # retention keeps up
        hand.publish(user)
    assert [version.number for version in hand.store.versions(user.user_id)] == [8, 7]
    for number in (7, 8):
        hand.store.pin(user.user_id, number, True)
    for _ in range(2):
        version = hand.publish(user)
        hand.store.pin(user.user_id, version.number, True)
    with pytest.raises(QuotaExceeded, match="4"):
        hand.publish(user)
    assert hand.publish(hand.user("bob")).number == 1


def test_only_staged_folders_are_published_or_discarded(local, tmp_path, adapter):
    user = local.user()
    outside = adapter(tmp_path / "staging" / user.user_id / ("0" * 32))
    for call in (lambda: local.store.discard(outside), lambda: local.publish(user, staged=outside)):
        with pytest.raises(InvalidValue):
            call()
    assert sorted(path.name for path in outside.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    with pytest.raises(NotFound):
        local.store.stage("0" * 32)


def test_discard_ends_a_stage(hand):
    staged = hand.stage(hand.user())
    hand.store.discard(staged)
    hand.store.discard(staged)
    assert not staged.exists()


def test_an_imported_folder_becomes_the_head(hand, adapter, tmp_path):
    user = hand.user()
    hand.publish(user)
    folder = adapter(tmp_path / "outside", value=77)
    (folder / "README.md").write_text("made by PEFT")
    expected = {"model.layers.0.q_proj": (6, 4), "model.layers.0.k_proj": (6, 2)}
    version = hand.store.import_version(user.user_id, folder, hand.base, expected)
    assert (version.number, version.parent, version.origin) == (2, 1, "import")
    assert hand.store.head(user.user_id, hand.base) == version
    assert version.digest == folder_digest(folder)
    assert not (hand.store.path(version) / "README.md").exists()
    assert (folder / "README.md").exists(), "the folder outside is left alone"


def test_an_import_for_another_base_changes_nothing(hand, adapter, tmp_path):
    user = hand.user()
    folder = adapter(tmp_path / "outside")
    for expected in ({}, {"model.layers.0.q_proj": (6, 5)}):
        with pytest.raises(AdapterMismatch, match="q_proj"):
            hand.store.import_version(user.user_id, folder, hand.base, expected)
    assert hand.store.head(user.user_id, hand.base) is None
    with pytest.raises(NotFound):
        hand.store.import_version("0" * 32, folder, hand.base)


def test_verify_finds_changed_bytes(local):
    version = local.publish(local.user())
    local.store.verify(version)
    file = local.store.path(version) / "adapter_model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(AdapterCorrupt, match="digest"):
        local.store.verify(version)
    file.unlink()
    with pytest.raises(NotFound):
        local.store.path(version)


def test_everything_on_disk_is_private(local):
    local.publish(local.user())
    modes = {path.stat().st_mode & 0o077 for path in local.home.rglob("*") if path.is_file()}
    assert modes == {0}


def test_a_version_that_no_update_made_has_an_audit_line_that_says_why(hand):
    user = hand.user()
    hand.publish(user, why={"turn": "t7"})
    assert not [line for line in hand.store.audit_log() if line.action.startswith("version.")]
    version = hand.publish(user, origin="recomputation", why={"turn": "t7", "steps": 2})
    (line, *_) = hand.store.audit_log(1)
    assert (line.action, line.object_id) == ("version.recomputation", user.user_id)
    assert line.detail == {"turn": "t7", "steps": 2, "number": version.number, "digest": version.digest}
    with pytest.raises(InvalidValue, match="detail"):
        hand.publish(user, origin="recomputation", why={"text": "what the user has said"})
    assert hand.store.head(user.user_id, hand.base) == version
