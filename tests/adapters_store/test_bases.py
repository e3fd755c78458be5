"""What a store remembers of the base models that were opened on it."""

import pytest

from adapters_store.errors import InvalidValue

MODULES = {"model.layers.0.q_proj": (6, 4), "model.layers.1.q_proj": (6, 4)}


def test_the_last_one_opened_and_the_last_one_of_a_name(hand):
    store = hand.store
    assert store.base_digest() is None and store.base_digest("pocket") is None
    store.record_base("pocket", "a" * 64, MODULES)
    store.record_base("/some/where", "b" * 64, {"other": (1, 2)})
    assert store.base_digest() == store.base_digest("/some/where") == "b" * 64
    assert store.base_digest("pocket") == "a" * 64
    store.record_base("pocket", "c" * 64, MODULES)
    assert store.base_digest() == store.base_digest("pocket") == "c" * 64
    assert store.base_modules("a" * 64) == store.base_modules("c" * 64) == MODULES
    assert store.base_digest("nothing") is None and store.base_modules("d" * 64) is None


def test_recording_twice_changes_nothing(hand):
    for _ in range(2):
        hand.store.record_base("pocket", "a" * 64, MODULES)
    assert hand.store.base_modules("a" * 64) == MODULES


def test_unknown_modules_stay_unknown(hand):
    hand.store.record_base("pocket", "a" * 64)
    assert hand.store.base_digest() == "a" * 64 and hand.store.base_modules("a" * 64) is None


def test_names_are_not_kept(local):
    local.store.record_base("models/of somebody", "a" * 64, MODULES)
    local.store.close()
    assert not any(b"somebody" in file.read_bytes() for file in local.files())


def test_another_store_on_the_same_files_sees_it(open_hand):
    open_hand().store.record_base("pocket", "a" * 64, MODULES)
    other = open_hand().store
    assert other.base_digest("pocket") == "a" * 64 and other.base_modules("a" * 64) == MODULES


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"a": 3}', b'{"a": ["x", "y"]}', b"\xff"])
def test_a_damaged_record_is_no_record_and_is_made_anew(local, content):
    local.store.record_base("pocket", "a" * 64, MODULES)
    (file,) = local.home.rglob("bases/*")
    file.write_bytes(content)
    assert local.store.base_modules("a" * 64) is None
    local.store.record_base("pocket", "a" * 64, MODULES)
    assert local.store.base_modules("a" * 64) == MODULES


def test_sweeping_leaves_it_alone(hand):
    hand.store.record_base("pocket", "a" * 64, MODULES)
    hand.clock.now += 10**6
    hand.store.sweep()
    assert hand.store.base_modules("a" * 64) == MODULES


@pytest.mark.parametrize("digest", ["", "a" * 63, "../../x", "A" * 64])
def test_a_digest_is_a_digest(hand, digest):
    with pytest.raises(InvalidValue, match="64 lower-case hex"):
        hand.store.record_base("pocket", digest, MODULES)
