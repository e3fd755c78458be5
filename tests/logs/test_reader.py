"""Log files: every shape, every way in which a line can be broken."""

import json

import pytest

from personalize.errors import InvalidParameter
from personalize.logs import BrokenLine, LoggedConversation, read_line, read_log, reader
from personalize.types import Message

SAID = (Message("user", "hello"), Message("assistant", "hi"), Message("user", "shorter"))
OPENAI = {"messages": [{"role": m.role, "content": m.content} for m in SAID]}
WILDCHAT = {"conversation": [{"role": m.role, "content": m.content, "language": "English"} for m in SAID], "turn": 2}
SHAREGPT = {
    "id": "abc_0",
    "conversations": [{"from": {"user": "human", "assistant": "gpt"}[m.role], "value": m.content} for m in SAID],
}


def read(record) -> LoggedConversation | BrokenLine:
    return read_line(json.dumps(record).encode(), 7)


@pytest.mark.parametrize("record", [OPENAI, WILDCHAT, SHAREGPT], ids=["openai", "wildchat", "sharegpt"])
def test_every_shape_gives_the_same_messages(record):
    found = read(record)
    assert isinstance(found, LoggedConversation)
    assert (found.messages, found.user, found.line) == (SAID, None, 7)


@pytest.mark.parametrize(
    ("record", "user"),
    [
        ({**OPENAI, "user": "ann"}, "ann"),
        ({**OPENAI, "safety_identifier": "ann"}, "ann"),
        ({**OPENAI, "user": None, "user_id": 12}, "12"),
        ({**WILDCHAT, "hashed_ip": "c0ffee"}, "c0ffee"),
        ({**WILDCHAT, "user_id": "ann", "hashed_ip": "c0ffee"}, "ann"),
        ({"conversation": [{"role": "user", "content": "hello", "hashed_ip": "c0ffee"}]}, "c0ffee"),
        ({**SHAREGPT, "user": "ann"}, "ann"),
        (SHAREGPT, None),
    ],
)
def test_whose_conversation_it_is(record, user):
    found = read(record)
    assert isinstance(found, LoggedConversation) and found.user == user


def test_roles_and_parts_are_read_like_those_of_a_request():
    found = read({"messages": [{"role": "developer", "content": [{"type": "text", "text": "a\r\nb"}]}]})
    assert isinstance(found, LoggedConversation) and found.messages == (Message("system", "a\nb"),)
    found = read({"conversations": [{"from": "system", "value": "be brief"}, {"from": "observation", "value": "42"}]})
    assert isinstance(found, LoggedConversation) and [m.role for m in found.messages] == ["system", "tool"]
    assert read({"messages": []}) == LoggedConversation(7, 0, None, ())


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"messages": [', "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"[1]", "one JSON object per line"),
        (b'{"text": "hello"}', "one of messages, conversation, conversations"),
        (b'{"messages": "hello"}', "a list of messages"),
        (b'{"messages": [1]}', "an object with role and content"),
        (b'{"messages": [{"role": "narrator", "content": "x"}]}', "role"),
        (b'{"messages": [{"role": "user", "content": 5}]}', "content"),
        (b'{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}', "image_url"),
        (b'{"messages": [], "user": ["ann"]}', "user"),
        (b'{"messages": [], "user": " "}', "non-blank"),
        (b'{"conversation": null}', "a list of messages"),
        (b'{"conversation": [{"role": "user", "content": "x", "hashed_ip": 1.5}]}', "hashed_ip"),
        (b'{"conversations": "x"}', "a list of messages"),
        (b'{"conversations": ["x"]}', "an object with from and value"),
        (b'{"conversations": [{"from": "martian", "value": "x"}]}', "from"),
        (b'{"conversations": [{"from": "human", "value": 5}]}', "content"),
        (None, "longer than"),
    ],
)
def test_a_broken_line_says_what_is_wrong_with_it(line, reason):
    found = read_line(line, 3, 99)
    assert isinstance(found, BrokenLine) and (found.line, found.end_bytes) == (3, 99)
    assert reason in found.reason


def test_a_file_is_read_line_by_line_and_broken_lines_do_not_end_it(tmp_path):
    log = tmp_path / "log.jsonl"
    whole = json.dumps(OPENAI).encode()
    log.write_bytes(b"\xef\xbb\xbf" + whole + b"\r\n\n  \n{broken\n" + whole)
    found = list(read_log(log))
    assert [(type(one), one.line) for one in found] == [
        (LoggedConversation, 1),
        (BrokenLine, 4),
        (LoggedConversation, 5),
    ]
    assert found[-1].end_bytes == log.stat().st_size


def test_an_endless_line_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "MAX_LINE_BYTES", 200)
    log = tmp_path / "log.jsonl"
    whole = json.dumps(OPENAI).encode()
    assert len(whole) < 200
    log.write_bytes(b"x" * 1000 + b"\n" + whole + b"\n" + b"y" * 201 + b"\n" + whole + b"\n" + b"z" * 300)
    assert [type(one) for one in read_log(log)] == [
        BrokenLine,
        LoggedConversation,
        BrokenLine,
        LoggedConversation,
        BrokenLine,
    ]


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InvalidParameter, match="readable file"):
        list(read_log(tmp_path / "nothing.jsonl"))
    with pytest.raises(InvalidParameter, match="readable file"):
        list(read_log(tmp_path))
