import asyncio
import json

import pytest
from starlette.requests import Request

from personalize.errors import InvalidRequest
from server.body import MAX_BODY_BYTES, MAX_DEPTH, parse_json, read_object
from server.errors import BodyTooLarge


def test_plain_json_comes_through():
    assert parse_json('{"a": [1, 2.5, null, true, "é😀"]}'.encode()) == {"a": [1, 2.5, None, True, "é😀"]}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"hello",
        b'{"a": 1} x',
        b"\xff\xfe{}",
        b'{"temperature": NaN}',
        b'{"temperature": Infinity}',
        b'{"temperature": -Infinity}',
        b'{"n": ' + b"9" * 5000 + b"}",
        b"[" * 1_000_000,
        b'{"a":' * 100_000,
        b"[" * 50_000 + b"]" * 50_000,
        b"\x00",
    ],
    ids=range(13),
)
def test_what_is_not_json_is_refused(raw):
    with pytest.raises(InvalidRequest):
        parse_json(raw)


def test_depth_is_bounded_exactly():
    def nested(levels: int) -> bytes:
        return b"[" * levels + b"]" * levels

    assert parse_json(nested(MAX_DEPTH))
    with pytest.raises(InvalidRequest, match="nested deeper"):
        parse_json(nested(MAX_DEPTH + 2))


def test_half_surrogate_pairs_are_left_to_those_who_use_the_text():
    assert parse_json(rb'{"a": "\ud800"}') == {"a": "\ud800"}


def test_whole_surrogate_pairs_are_text():
    assert parse_json(rb'{"a": "\ud83d\ude00"}') == {"a": "😀"}


def test_the_message_never_repeats_the_body():
    with pytest.raises(InvalidRequest) as caught:
        parse_json(b'{"messages": "my secret diary"')
    assert "diary" not in str(caught.value)


def test_overflowing_numbers_are_left_to_the_field_checks():
    assert parse_json(b"[1e999]") == [float("inf")]
    assert json.loads(b"[1e999]") == [float("inf")]


def test_a_chunked_body_is_read_no_further_than_the_limit():
    received = 0

    async def receive() -> dict:
        nonlocal received
        received += 2**16
        return {"type": "http.request", "body": b" " * 2**16, "more_body": True}

    request = Request({"type": "http", "method": "POST", "headers": []}, receive)
    with pytest.raises(BodyTooLarge):
        asyncio.run(read_object(request))
    assert received == MAX_BODY_BYTES + 2**16


@pytest.mark.parametrize("length", [str(MAX_BODY_BYTES + 1), "9" * 5000])
def test_a_declared_length_over_the_limit_is_refused_unread(length):
    async def receive() -> dict:
        raise AssertionError("nothing is read")

    headers = [(b"content-length", length.encode())]
    with pytest.raises(BodyTooLarge):
        asyncio.run(read_object(Request({"type": "http", "method": "POST", "headers": headers}, receive)))


@pytest.mark.parametrize("raw", [b"[]", b"3", b"null", b"true", b'"x"', b""])
def test_only_objects_are_bodies(raw):
    async def receive() -> dict:
        return {"type": "http.request", "body": raw, "more_body": False}

    with pytest.raises(InvalidRequest):
        asyncio.run(read_object(Request({"type": "http", "method": "POST", "headers": []}, receive)))
