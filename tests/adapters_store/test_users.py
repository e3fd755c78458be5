import threading

import pytest

from adapters_store.errors import InvalidValue, NotFound


def test_a_user_is_made_once_and_found_again(hand):
    user = hand.user("ann@example.org")
    assert hand.user("ann@example.org") == user == hand.store.find_user("ann@example.org")
    assert hand.store.get_user(user.user_id) == user
    assert user.learning == "active" and user.consent is None and user.epoch == user.num_turns == user.num_updates == 0
    assert hand.store.find_user("bob") is None
    assert hand.store.get_user("0" * 32) is None


def test_threads_that_meet_the_same_user_make_one(hand):
    found = []
    threads = [threading.Thread(target=lambda: found.append(hand.user("ann").user_id)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and len(set(found)) == 1


def test_external_ids_are_kept_only_as_keyed_hash(local):
    local.user("ann-canary-4711")
    local.store.close()
    assert all(b"canary" not in path.read_bytes() for path in local.files())


def test_ids_that_differ_in_one_byte_are_different_users(hand):
    names = ["a", "A", "a ", "ä", "a\u0308", "\ud800", "x" * 512]
    assert len({hand.user(name).user_id for name in names}) == len(names)


@pytest.mark.parametrize("bad", ["", "x" * 513, None, 7])
def test_bad_external_ids_are_refused(local, bad):
    with pytest.raises(InvalidValue, match="512"):
        local.store.ensure_user(bad)


def test_every_user_has_a_key_of_their_own(hand):
    keys = {hand.store.user_key(hand.user(name).user_id) for name in "abc"}
    assert len(keys) == 3 and all(len(key) == 32 and any(key) for key in keys)
    with pytest.raises(NotFound):
        hand.store.user_key("0" * 32)


def test_learning_and_consent(hand):
    user = hand.user()
    hand.store.set_learning(user.user_id, "paused")
    hand.store.record_consent(user.user_id, True, "2026-01", "app")
    found = hand.store.get_user(user.user_id)
    assert (found.learning, found.consent) == ("paused", True)
    hand.store.record_consent(user.user_id, False, "2026-01", "app")
    assert hand.store.get_user(user.user_id).consent is False
    with pytest.raises(InvalidValue):
        hand.store.set_learning(user.user_id, "sometimes")
    with pytest.raises(NotFound):
        hand.store.set_learning("0" * 32, "paused")


def test_listing_goes_page_by_page(hand):
    made = sorted(hand.user(f"user {number}").user_id for number in range(7))
    first = hand.store.list_users(limit=4)
    second = hand.store.list_users(limit=4, after=first[-1].user_id)
    assert [user.user_id for user in first + second] == made


@pytest.mark.parametrize("bad", ["", "../../etc/passwd", "A" * 32, "0" * 31, "0" * 33, None])
def test_ids_of_another_form_never_reach_the_disk(local, bad):
    for call in (
        local.store.get_user,
        local.store.versions,
        local.store.stage,
        local.store.forget,
        local.store.updates,
    ):
        with pytest.raises(InvalidValue):
            call(bad)
