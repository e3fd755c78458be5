import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalize.turns.canonical import canonical, canonical_text, prefix_key, prompt_key, reply_key
from personalize.types import Message

KEY = b"k" * 32
TURN = [Message("user", "Hi"), Message("assistant", "Hello!")]
ROLES = st.sampled_from(["user", "assistant", "tool"])
messages = st.lists(st.builds(Message, ROLES, st.text("ab\n", max_size=3)), max_size=4)


def test_canonical_text():
    assert canonical(Message("user", " a\r\nb\rc \n")) == "user\na\nb\nc"
    assert canonical(Message("user", "e\u0301")) == "user\n\u00e9"
    assert canonical(Message("assistant", "<think>x</think>\n\nYes. ")) == "assistant\nYes."
    assert canonical(Message("user", "<think>x</think>")) == "user\n<think>x</think>"


@given(st.text())
def test_canonical_text_is_its_own(text):
    once = canonical(Message("user", text)).partition("\n")[2]
    assert canonical(Message("user", once)) == f"user\n{once}"
    assert canonical(Message("user", unicodedata.normalize("NFD", text))) == f"user\n{once}"


@given(messages, messages)
def test_other_conversations_have_other_keys(one, other):
    same = [canonical(m) for m in one] == [canonical(m) for m in other]
    assert (prefix_key(KEY, one) == prefix_key(KEY, other)) == same


def test_system_messages_do_not_count():
    assert prefix_key(KEY, [Message("system", "x"), *TURN, Message("system", "y")]) == prefix_key(KEY, TURN)


def test_keys_of_one_kind_are_never_those_of_another():
    reply = [Message("assistant", "Hello!")]
    assert len({prefix_key(KEY, reply), prompt_key(KEY, reply), reply_key(KEY, "Hello!")}) == 3


def test_fields_do_not_run_into_each_other():
    apart = [Message("user", "ab"), Message("user", "c")]
    assert prefix_key(KEY, apart) != prefix_key(KEY, [Message("user", "a"), Message("user", "bc")])
    assert prefix_key(KEY, apart) != prefix_key(KEY, [Message("user", "ab\nuser\nc")])


@pytest.mark.parametrize("other", [b"", b"j" * 32, b"k" * 31])
def test_another_users_key_gives_another_hash(other):
    assert prefix_key(other, TURN) != prefix_key(KEY, TURN)
    assert reply_key(other, "Hello!") != reply_key(KEY, "Hello!")


def test_keys_are_hex_and_take_any_text():
    for key in (prefix_key(KEY, TURN), prompt_key(KEY, []), reply_key(b"x" * 500, "\ud800 \x00 🙂")):
        assert len(key) == 32 and int(key, 16) >= 0


def test_piled_up_marks_cost_no_more_than_their_number():
    """Normalizing is quadratic in a pile of marks: a million of them would take the better part of an hour."""
    few, many = "e\u0301" * 20_000, "e" + "\u0301\u0323" * 500_000
    assert canonical_text(Message("user", few)) == "\u00e9" * 20_000
    assert canonical_text(Message("user", many)) == many
    assert canonical_text(Message("user", "e" + "\u0301" * 30)).startswith("\u00e9")
