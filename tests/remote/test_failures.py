import asyncio
import inspect
import json

import httpx2
import pytest

from personalize import errors
from personalize.errors import Cancelled, InvalidParameter, InvalidRequest, Overloaded, PersonalizeError, Unreachable
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
        (414, b"", errors.InvalidRequest),
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


@pytest.mark.parametrize("body", [b"hello", b"[]", b"", b'{"a":' * 100_000])
def test_an_answer_that_is_not_ours_is_a_typed_error(body):
    async def work() -> None:
        with pytest.raises(Unreachable, match="right address"):
            await remote(lambda request: httpx2.Response(200, content=body)).user("alice")

    asyncio.run(work())


ASKED = {
    "models": lambda app: app.model(),
    "chat": lambda app: app.chat("alice", "hi"),
    "outcome": lambda app: app.outcome("r"),
    "versions": lambda app: app.versions("alice"),
    "rollback": lambda app: app.rollback("alice", 1),
    "undo": lambda app: app.undo("alice"),
    "undo of a turn": lambda app: app.undo_turn("alice", "t"),
    "updates": lambda app: app.updates("alice"),
    "update": lambda app: app.update("u"),
    "explanation": lambda app: app.explain("alice"),
    "user": lambda app: app.user("alice"),
    "users": lambda app: app.users(),
    "receipt": lambda app: app.forget("alice"),
}
ODD = [{}, {"data": 3}, {"data": [None]}, {"choices": []}, {"choices": [{}]}, {"outcome": "?"}, {"version": 3}]


@pytest.mark.parametrize("asked", ASKED)
def test_an_answer_of_another_shape_is_a_typed_error(asked):
    def answer(request: httpx2.Request, odd) -> httpx2.Response:
        whole = request.url.path == "/v1/models" and asked == "chat"
        return httpx2.Response(200, json={"data": [{"id": "m"}]} if whole else odd)

    async def work() -> None:
        for odd in ODD:
            with pytest.raises(Unreachable, match="right address"):
                await ASKED[asked](remote(lambda request, odd=odd: answer(request, odd)))

    asyncio.run(work())


STARTED = {"x-request-id": "r", "x-adapter-version": "2", "x-learning": "queued"}


def stream_of(*events: str, started=STARTED) -> RemotePersonalizer:
    headers = {"content-type": "text/event-stream", **started}

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


@pytest.mark.parametrize(
    ("event", "started"),
    [("{}", STARTED), ('{"choices": [{}]}', STARTED), (PIECE, {}), (PIECE, {**STARTED, "x-adapter-version": "two"})],
)
def test_a_stream_of_another_shape_is_a_typed_error(event, started):
    async def work() -> None:
        with pytest.raises(Unreachable, match="right address"):
            async for _ in stream_of(event, started=started).stream(ChatRequest((Message("user", "hi"),))):
                pass

    asyncio.run(work())


@pytest.mark.parametrize("user", ["", ".", "..", "\ud800"])
def test_names_that_cannot_be_a_path_segment(user):
    with pytest.raises(InvalidParameter):
        asyncio.run(remote(lambda request: httpx2.Response(200, json={})).forget(user))


@pytest.mark.parametrize(
    ("call", "param"),
    [
        (lambda app: app.consent("alice", float("nan")), "consent"),
        (lambda app: app.rollback("alice", float("nan")), "version"),
        (lambda app: app.chat("alice", [{"role": "user", "content": {1, 2}}]), "messages"),
        (lambda app: app.undo_turn("alice", "x" * 70_000), "turn"),
        (lambda app: app.users(limit="9" * 70_000), "limit"),
    ],
)
def test_what_no_request_can_carry_is_named(call, param):
    with pytest.raises(InvalidParameter) as caught:
        asyncio.run(call(remote(lambda request: httpx2.Response(200, json={"data": [{"id": "m"}]}))))
    assert caught.value.param == param and caught.value.allowed


def test_half_a_surrogate_pair_travels_as_json_spells_it():
    bodies = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        bodies.append(request.content)
        return httpx2.Response(200, json={"data": [{"id": "m"}]})

    with pytest.raises(Unreachable):
        asyncio.run(remote(answer).chat(None, "ü \ud83d"))
    assert json.loads(bodies[-1])["messages"] == [{"role": "user", "content": "ü \ud83d"}]
    assert "ü \\ud83d".encode() in bodies[-1]


ADDRESSES = [
    "",
    "localhost:8000",
    "http://",
    "http://[::1",
    "http://host:port",
    "http://h:99999",
    "http://\ud800",
    None,
]


@pytest.mark.parametrize("base_url", ADDRESSES)
def test_addresses_that_no_server_can_have(base_url):
    with pytest.raises(InvalidParameter) as caught:
        RemotePersonalizer(base_url, "key")
    assert (caught.value.param, caught.value.value) == ("base_url", base_url)


@pytest.mark.parametrize("key", ["", "hush\u2026", "hush\x00", "hush hush", b"hush"])
def test_keys_that_no_header_can_carry_are_refused_but_never_told(key):
    with pytest.raises(InvalidRequest) as caught:
        RemotePersonalizer("http://test", key)
    assert caught.value.param == "api_key" and "hush" not in str(caught.value)


def test_a_key_may_come_with_the_end_of_its_line():
    keys = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        keys.append(request.headers["authorization"])
        return httpx2.Response(200, json={"data": [{"id": "m"}]})

    app = RemotePersonalizer("http://test", "secret\r\n", transport=httpx2.MockTransport(answer))
    assert asyncio.run(app.model()) == "m" and keys == ["Bearer secret"]


def test_a_closed_client_says_so():
    async def work() -> None:
        app = remote(lambda request: httpx2.Response(200, json={}))
        await app.aclose()
        with pytest.raises(Cancelled):
            await app.user("alice")

    asyncio.run(work())
