import asyncio
import inspect
import json

import httpx2
import pytest

from personalize import errors
from personalize.errors import InvalidParameter, Overloaded, PersonalizeError, Unreachable
from personalize.remote import RemotePersonalizer
from personalize.remote.failures import failure
from personalize.types import ChatRequest, Message
from server.errors import error_response


def samples() -> list[PersonalizeError]:
    classes = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, PersonalizeError)]
    plain = [cls("what happened") for cls in classes if cls not in (InvalidParameter, Overloaded)]
    return [*plain, InvalidParameter("n", 9, "1 to 4"), Overloaded("full", retry_after_s=3)]


@pytest.mark.parametrize("error", samples(), ids=lambda error: type(error).__name__)
def test_every_error_survives_the_way_over_http(error):
    response = error_response(error)
    back = failure(response.status_code, bytes(response.body), response.headers.get("retry-after"))
    assert type(back) is type(error)
    assert (back.code, back.param) == (error.code, error.param)
    if isinstance(error, Overloaded):
        assert back.retry_after_s == max(1, round(error.retry_after_s))


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (400, b'{"error": {"code": "from_the_future", "message": "m"}}', errors.InvalidRequest),
        (404, b"<html>nginx</html>", errors.NotFound),
        (502, b"", Unreachable),
        (503, b"[1]", Overloaded),
        (418, b'{"error": "short and stout"}', PersonalizeError),
        (500, b"{" * 5000, PersonalizeError),
    ],
)
def test_answers_of_others_are_read_by_their_status(status, body, error):
    assert type(failure(status, body)) is error


def test_codes_of_newer_servers_are_kept():
    assert failure(400, b'{"error": {"code": "from_the_future", "message": "m"}}').code == "from_the_future"


def remote(answer) -> RemotePersonalizer:
    return RemotePersonalizer("http://test", "key", transport=httpx2.MockTransport(answer))


def test_no_connection_is_a_typed_error():
    async def work() -> None:
        def refuse(request):
            raise httpx2.ConnectError("refused")

        with pytest.raises(Unreachable):
            await remote(refuse).user("alice")

    asyncio.run(work())


@pytest.mark.parametrize("body", [b"hello", b"[]", b""])
def test_an_answer_that_is_not_ours_is_a_typed_error(body):
    async def work() -> None:
        with pytest.raises(Unreachable, match="right address"):
            await remote(lambda request: httpx2.Response(200, content=body)).user("alice")

    asyncio.run(work())


def stream_of(*events: str) -> RemotePersonalizer:
    headers = {
        "content-type": "text/event-stream",
        "x-request-id": "r",
        "x-adapter-version": "2",
        "x-learning": "queued",
    }

    def answer(request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/v1/models":
            return httpx2.Response(200, json={"data": [{"id": "m"}]})
        return httpx2.Response(200, headers=headers, content="".join(f"data: {e}\n\n" for e in events).encode())

    return remote(answer)


PIECE = json.dumps({"choices": [{"index": 0, "delta": {"content": "he"}, "finish_reason": None}]})


@pytest.mark.parametrize(
    ("events", "error"),
    [
        ((PIECE,), Unreachable),
        ((PIECE, json.dumps({"error": {"code": "overloaded", "message": "full"}})), Overloaded),
    ],
)
def test_a_stream_that_breaks_is_never_mistaken_for_a_whole_one(events, error):
    async def work() -> None:
        texts = []
        with pytest.raises(error):
            async for chunk in stream_of(*events).stream(ChatRequest((Message("user", "hi"),))):
                texts.append(chunk.text)
        assert texts == ["", "he"]

    asyncio.run(work())


@pytest.mark.parametrize("user", ["", ".", "..", "\ud800"])
def test_names_that_cannot_be_a_path_segment(user):
    with pytest.raises(InvalidParameter):
        asyncio.run(remote(lambda request: httpx2.Response(200, json={})).forget(user))
