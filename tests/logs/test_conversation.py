"""Which triples (x, y, o) a conversation has."""

import pytest

from personalize.logs import Interaction, interactions
from personalize.types import Message

ROLES = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}


def said(*texts: str) -> tuple[Message, ...]:
    """Messages from texts that begin with their role's letter and a colon."""
    return tuple(Message(ROLES[text[0]], text[2:]) for text in texts)


def test_every_answered_reply_with_a_follow_up_is_one():
    whole = said("s:be kind", "u:one", "a:1", "u:two", "a:2", "u:three", "a:3")
    assert list(interactions(whole)) == [
        Interaction(whole[:2], "1", "two"),
        Interaction(whole[:4], "2", "three"),
    ]


def test_all_user_messages_before_the_next_reply_are_the_follow_up():
    (found,) = interactions(said("u:one", "a:1", "u:shorter", "s:a note", "u: ", "u:please"))
    assert found.follow_up == "shorter\nplease"


def test_a_reply_about_a_tool_result_is_one():
    whole = said("u:weather?", "a:", "t:rain", "a:It rains.", "u:shorter")
    assert [found.reply for found in interactions(whole)] == ["It rains."]


@pytest.mark.parametrize(
    "messages",
    [
        (),
        ("u:one",),
        ("u:one", "a:1"),
        ("a:welcome", "u:one"),
        ("s:system", "a:welcome", "u:one"),
        ("u:one", "a: ", "u:two"),
        ("u:one", "a:1", "u: "),
        ("u: ", "a:1", "u:two"),
        ("u:one", "a:1", "t:42", "u:two"),
        ("u:one", "a:1", "u:two", "t:42"),
        ("u:one", "a:1", "a:2", "u:two"),
        ("t:42", "a:1", "u:two"),
    ],
)
def test_there_is_none(messages):
    assert not list(interactions(said(*messages)))
