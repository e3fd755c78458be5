import pytest

from personalize.errors import InvalidParameter, UnsupportedParameter
from personalize.rendering.messages import Traits, conversation, parse_messages
from personalize.types import Message

USER = {"role": "user", "content": "Hi"}
S, U, A, T = (lambda text, role=role: Message(role, text) for role in ("system", "user", "assistant", "tool"))


def parsed(*raw) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in parse_messages(raw)]


def test_roles():
    raw = [{"role": role, "content": "x"} for role in ("developer", "system", "assistant", "tool", "function", "user")]
    assert [role for role, _ in parsed(*raw)] == ["system", "system", "assistant", "tool", "tool", "user"]


def test_model_dump_with_nulls():
    dumped = {"content": None, "refusal": None, "role": "assistant", "audio": None, "tool_calls": [{"id": "1"}]}
    assert parsed(USER, dumped, USER)[1] == ("assistant", "")


def test_content_parts_are_joined_by_newlines():
    parts = [{"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}, {"type": "refusal", "refusal": "c"}]
    assert parsed({"role": "user", "content": parts}) == [("user", "a\nb\nc")]


def test_line_ends_and_half_surrogates():
    assert parsed({"role": "user", "content": "a\r\nb\rc\ud83dd\ud83d\ude42"}) == [("user", "a\nb\nc\ufffdd🙂")]


def test_a_thought_in_a_client_copy_is_not_part_of_the_reply():
    reply = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes. <think>no</think>"}
    assert parsed(USER, reply, USER)[1] == ("assistant", "Yes. <think>no</think>")
    assert parsed({"role": "user", "content": "<think>a</think>b"}) == [("user", "<think>a</think>b")]
    assert parsed(USER, {"role": "assistant", "content": "<think>a"}, USER)[1] == ("assistant", "<think>a")


def test_parsed_messages_are_taken_again():
    once = parse_messages([{"role": "developer", "content": "x"}, USER])
    assert parse_messages(once) == once


@pytest.mark.parametrize(
    ("raw", "param"),
    [
        ([], "messages"),
        ("Hi", "messages"),
        ({"role": "user"}, "messages"),
        (None, "messages"),
        (["Hi"], "messages[0]"),
        ([{"content": "Hi"}], "messages[0].role"),
        ([{"role": "robot", "content": "Hi"}], "messages[0].role"),
        ([{"role": ["user"], "content": "Hi"}], "messages[0].role"),
        ([{"role": "user", "content": 5}], "messages[0].content"),
        ([{"role": "user", "content": b"Hi"}], "messages[0].content"),
        ([{"role": "user", "content": {"text": "Hi"}}], "messages[0].content"),
        ([{"role": "user", "content": ["Hi"]}], "messages[0].content[0]"),
        ([{"role": "user", "content": [{"text": "Hi"}]}], "messages[0].content[0]"),
        ([{"role": "user", "content": [{"type": "text", "text": None}]}], "messages[0].content[0].text"),
        ([{"role": "user", "content": " \n"}], "messages"),
        ([{"role": "user"}], "messages"),
        ([{"role": "system", "content": "x"}], "messages"),
        ([USER, {"role": "assistant", "content": "x"}], "messages"),
        ([USER, {"role": "assistant", "content": "x"}, {"role": "system", "content": "x"}], "messages"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_its_place(raw, param):
    with pytest.raises(InvalidParameter) as caught:
        parse_messages(raw)
    assert caught.value.param == param
    assert "allowed" in str(caught.value)


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file", "video"])
def test_parts_that_are_not_text_are_refused_by_name(kind):
    with pytest.raises(UnsupportedParameter, match=kind):
        parse_messages([{"role": "user", "content": [{"type": kind, kind: {}}]}])


def test_a_tool_result_may_come_last():
    assert parsed(USER, {"role": "assistant", "content": None}, {"role": "tool", "content": "4"})[-1] == ("tool", "4")


# --- what the template is shown -------------------------------------------------------------------------------


def test_system_messages_merge_at_the_front():
    shown = conversation([U("a"), S("one"), A("b"), S(" "), S("two"), U("c")])
    assert shown == (S("one\n\ntwo"), U("a"), A("b"), U("c"))


def test_an_empty_system_message_is_none():
    assert conversation([S("  "), U("a")]) == (U("a"),)


def test_without_a_system_role_it_begins_the_first_user_message():
    no_system = Traits(system=False)
    assert conversation([S("one"), U("a"), A("b"), U("c")], no_system) == (U("one\n\na"), A("b"), U("c"))
    assert conversation([S("one"), A("b"), U("c")], no_system) == (A("b"), U("one\n\nc"))


def test_messages_of_one_role_are_joined():
    assert conversation([U("a"), U(""), U("b "), A("c"), A("d"), U("e")]) == (U("a\n\nb "), A("c\n\nd"), U("e"))
    # a system message between them does not keep them apart, as it moves to the front
    assert conversation([U("a"), S("x"), U("b")]) == (S("x"), U("a\n\nb"))


def test_a_leading_assistant_message_gets_something_to_answer():
    greeting = [A("Good morning!"), U("Hi")]
    assert conversation(greeting) == tuple(greeting)
    assert conversation(greeting, Traits(leading_assistant=False)) == (U(""), *greeting)


def test_tool_turns_are_kept_where_the_template_has_them():
    turn = [U("2+2?"), A(""), T("4"), A("Four"), U("Thanks")]
    assert conversation(turn) == tuple(turn)


def test_tool_turns_are_dropped_with_the_empty_call_where_it_has_not():
    no_tool = Traits(tool=False)
    turn = [U("2+2?"), A(""), T("4"), T("5"), A("Four"), U("b")]
    assert conversation(turn, no_tool) == (U("2+2?"), A("Four"), U("b"))
    # an assistant message with words of its own stays, and so does an empty one that called for nothing
    assert conversation([U("a"), A("One moment."), T("4"), A("Four"), U("b")], no_tool)[1] == A("One moment.\n\nFour")
    assert conversation([U("a"), A(""), U("b")], no_tool) == (U("a"), A(""), U("b"))
    assert conversation([U("a"), A(""), T("4")], no_tool) == (U("a"),)


def test_equal_messages_are_not_mistaken_for_each_other():
    empty = A("")
    assert conversation([U("a"), empty, T("4"), A("b"), U("c"), empty, U("d")], Traits(tool=False)) == (
        *(U("a"), A("b"), U("c"), empty, U("d")),
    )
