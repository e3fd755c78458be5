import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters_store import Limits
from adapters_store.errors import InvalidValue, NotFound, QuotaExceeded, StorageUnavailable
from adapters_store.schema import UserRow
from adapters_store.turn_files import EMPTY, Conversation, decode, encode, grow, shared_length


def chat(hand, user, length, tokens_per_turn=40):
    """Record a conversation of ``length`` turns the way a client carries it on; return ids and what was recorded."""
    rng, messages, ids, parent, recorded = random.Random(0), (), (), None, []
    for number in range(length):
        messages = (*messages, ("user", f"question {number} " + "q" * 60))
        prompt = ids + tuple(rng.randrange(1000) for _ in range(tokens_per_turn // 2))
        reply = tuple(rng.randrange(1000) for _ in range(tokens_per_turn // 2))
        text = f"answer {number} " + "a" * 60
        parent = hand.turn(
            user,
            messages=messages,
            prompt_ids=prompt,
            completion_ids=reply,
            completion_mask=(1,) * (len(reply) - 1) + (0,),
            reply_text=text,
            parent_turn_id=parent,
        )
        recorded.append((parent, messages, prompt, reply, text))
        messages, ids = (*messages, ("assistant", text)), prompt + reply
    return recorded


def test_every_turn_of_a_conversation_comes_back_whole(hand):
    user = hand.user()
    for turn_id, messages, prompt, reply, text in chat(hand, user, 12):
        stored = hand.store.load_turn(turn_id)
        assert (stored.messages, stored.prompt_ids, stored.completion_ids) == (messages, prompt, reply)
        assert stored.completion_mask == (1,) * (len(reply) - 1) + (0,)
        assert (stored.reply_text, stored.user_id, stored.follow_up) == (text, user.user_id, None)
    assert hand.store.get_user(user.user_id).num_turns == 12


def test_files_grow_with_the_conversation_not_with_its_square(local):
    user = local.user()
    chat(local, user, 64)
    sizes = [path.stat().st_size for path in (local.home / "files" / "users").rglob("turns/*.json")]
    assert len(sizes) == 64
    assert max(sizes) < 1.3 * min(sizes), "the last turn is not larger than the first"
    with local.store._read() as session:
        assert session.get(UserRow, user.user_id).turn_bytes == sum(sizes)


def test_trimmed_and_edited_histories_come_back_whole_too(hand):
    user = hand.user()
    first = hand.turn(user, messages=(("user", "a"), ("assistant", "b"), ("user", "c")), prompt_ids=(1, 2, 3))
    for messages, prompt in [((("user", "c"),), (9, 9)), ((("user", "a"), ("user", "x")), (1, 2, 8)), ((), ())]:
        child = hand.store.load_turn(hand.turn(user, messages=messages, prompt_ids=prompt, parent_turn_id=first))
        assert (child.messages, child.prompt_ids, child.parent_turn_id) == (messages, prompt, first)


TEXT = st.text(st.characters(exclude_categories=()), max_size=8)
IDS = st.lists(st.integers(0, 3), max_size=12).map(tuple)
MESSAGES = st.lists(st.tuples(st.sampled_from(["user", "assistant", "system"]), TEXT), max_size=5).map(tuple)


@given(parts=st.lists(st.tuples(MESSAGES, IDS, IDS, TEXT), min_size=1, max_size=6))
def test_any_chain_is_put_together_as_it_was(parts):
    parent, parent_id = EMPTY, None
    for number, (messages, prompt, reply, text) in enumerate(parts):
        wanted = Conversation(messages, prompt, reply, tuple(token % 2 for token in reply), text)
        # of a new turn, encode reads what a conversation has
        file = decode(encode(wanted, parent_id, parent))
        assert grow(parent if file["parent"] else EMPTY, file) == wanted
        parent, parent_id = wanted, str(number)


def test_shared_length():
    assert [shared_length(*pair) for pair in [("", ""), ("abc", "abd"), ("ab", "abc"), ("x", "y")]] == [0, 2, 2, 0]


def test_a_turn_whose_parent_is_gone_cannot_be_loaded(hand):
    user = hand.user()
    recorded = chat(hand, user, 3)
    hand.store._blobs.delete(f"users/{user.user_id}/turns/{recorded[0][0]}.json")
    for turn_id, *_ in recorded:
        with pytest.raises(NotFound):
            hand.store.load_turn(turn_id)
    again = hand.turn(user, parent_turn_id=recorded[-1][0], messages=recorded[-1][1], prompt_ids=recorded[-1][2])
    assert hand.store.load_turn(again).prompt_ids == recorded[-1][2], "recorded whole, since nothing can be shared"


def test_unknown_and_foreign_parents_are_no_parents(hand):
    ann, bob = hand.user("ann"), hand.user("bob")
    foreign = hand.turn(bob, messages=(("user", "secret"),), prompt_ids=(1, 2))
    for parent in (foreign, "0" * 32):
        turn_id = hand.turn(ann, messages=(("user", "secret"),), prompt_ids=(1, 2), parent_turn_id=parent)
        assert decode(hand.store._blobs.read(f"users/{ann.user_id}/turns/{turn_id}.json"))["parent"] is None


def test_finding_by_prefix_newest_first(hand):
    ann, bob = hand.user("ann"), hand.user("bob")
    turns = [hand.turn(ann, prefix_key="p" * 64, prompt_key="o" * 64) for _ in range(3)]
    hand.turn(bob, prefix_key="p" * 64)
    hand.turn(ann, prefix_key="q" * 64)
    found = hand.store.find_turns_by_prefix(ann.user_id, "p" * 64)
    assert [ref.turn_id for ref in found] == turns[::-1]
    assert [ref.turn_id for ref in hand.store.find_turns_by_prompt(ann.user_id, "o" * 64)] == turns[::-1]
    assert hand.store.find_turns_by_prompt(bob.user_id, "o" * 64) == []
    hand.store.queue_follow_up(ann.user_id, turns[1], "r", "hm")
    assert [ref.paired for ref in hand.store.find_turns_by_prefix(ann.user_id, "p" * 64)] == [False, True, False]


def test_finding_by_reply_leaves_out_old_and_paired_turns(hand, clock):
    user = hand.user()
    old = hand.turn(user, reply_key="k")
    clock.now += 100
    since = clock.now
    paired, free = hand.turn(user, reply_key="k", request_id="r-7"), hand.turn(user, reply_key="k")
    hand.store.queue_follow_up(user.user_id, paired, "r", "hm")
    assert [ref.turn_id for ref in hand.store.find_turns_by_reply(user.user_id, "k", since)] == [free]
    assert [ref.turn_id for ref in hand.store.find_turns_by_reply(user.user_id, "k", 0)] == [free, old]
    ref = hand.store.find_turns_by_reply(user.user_id, "k", since)[0]
    assert (ref.reply_chars, ref.finish_reason, ref.base_digest, ref.user_id) == (23, "stop", hand.base, user.user_id)


def test_the_follow_up_comes_with_the_turn(hand):
    user = hand.user()
    turn_id = hand.turn(user)
    hand.store.queue_follow_up(user.user_id, turn_id, "r", "kürzer \ud83d bitte")
    assert hand.store.load_turn(turn_id).follow_up == "kürzer \ud83d bitte"


@pytest.mark.parametrize(
    "changes",
    [
        {"completion_mask": (1, 1)},
        {"completion_mask": (1, 1, 2)},
        {"prompt_ids": (1, -1)},
        {"prompt_ids": (1, 1.5)},
        {"user_id": "../x"},
        {"request_id": ""},
        {"request_id": "x" * 101},
        {"outcome": "\n"},
    ],
)
def test_bad_turns_are_refused_before_anything_is_written(local, changes):
    user = local.user()
    before = local.files()
    with pytest.raises(InvalidValue):
        local.turn(user, **changes)
    assert local.files() == before


def test_turns_of_unknown_users_leave_no_file(local):
    user = local.user()
    with pytest.raises(NotFound):
        local.turn(user, user_id="0" * 32)
    assert local.files_beside_the_index() == []


def test_a_turn_whose_commit_was_not_answered_keeps_its_file(hand, lose_answer):
    user = hand.user()
    lose_answer(hand.store)
    with pytest.raises(StorageUnavailable):
        hand.turn(user, turn_id="ab" * 16, reply_text="high tide")
    assert hand.turn(user, turn_id="ab" * 16) == "ab" * 16
    assert hand.store.load_turn("ab" * 16).reply_text == "high tide"


def test_beyond_the_quota_the_oldest_conversations_go(open_hand):
    hand = open_hand(limits=Limits(max_turn_bytes_per_user=4000))
    user = hand.user()
    turns = [hand.turn(user, reply_text=f"{number} " + "x" * 400) for number in range(20)]
    kept = [path.stem for path in (hand.home / "files").rglob("turns/*.json")]
    assert 5 <= len(kept) <= 8
    assert set(kept) == set(turns[-len(kept) :])
    assert hand.store.get_user(user.user_id).num_turns == len(kept)
    with pytest.raises(NotFound):
        hand.store.load_turn(turns[0])


def test_one_endless_conversation_stays_within_the_quota_too(open_hand):
    hand = open_hand(limits=Limits(max_turn_bytes_per_user=4000))
    recorded = chat(hand, hand.user(), 40)
    sizes = [path.stat().st_size for path in (hand.home / "files").rglob("turns/*.json")]
    assert sum(sizes) < 4000 + 2 * max(sizes)
    assert hand.store.load_turn(recorded[-1][0]).prompt_ids == recorded[-1][2]


def test_a_single_turn_beyond_all_bounds_is_refused(open_hand):
    hand = open_hand(limits=Limits(max_turn_bytes=1000))
    with pytest.raises(QuotaExceeded, match="1000"):
        hand.turn(hand.user(), reply_text="x" * 2000)


def test_a_damaged_turn_file_is_a_typed_error(local):
    turn_id = local.turn(local.user())
    (path,) = (local.home / "files").rglob(f"{turn_id}.json")
    for content in (b"{", b"[]", json.dumps({"format": 2}).encode(), b"\xff"):
        path.write_bytes(content)
        with pytest.raises(StorageUnavailable):
            local.store.load_turn(turn_id)


def test_no_text_and_no_token_reaches_the_database(local):
    user = local.user()
    turn_id = local.turn(user, messages=(("user", "CANARY-ASK"),), reply_text="CANARY-SAY", prompt_ids=(31337, 31338))
    local.store.queue_follow_up(user.user_id, turn_id, "r", "CANARY-FOLLOW")
    local.store.close()
    assert not any(b"CANARY" in file.read_bytes() for file in local.home.glob("index.sqlite*"))
