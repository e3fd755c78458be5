"""The blocking twin over a real socket."""

import asyncio
import threading

import httpx2
import pytest

from personalize.errors import Cancelled, NotFound, Unreachable
from personalize.remote import SyncRemotePersonalizer
from personalize.types import ChatRequest, Message, Outcome
from tests.server.serving import listening


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with listening(tmp_path_factory.mktemp("home")) as socket:
        yield socket


@pytest.fixture
def app(server):
    with SyncRemotePersonalizer(server.url, server.service.app_key) as app:
        yield app


def test_chat_learn_and_forget(app):
    first = app.chat("alice", "hello")
    said = [Message("user", "hello"), Message("assistant", first.text), Message("user", "shorter")]
    second = app.chat("alice", said)
    assert second.outcome is Outcome.QUEUED and app.settled("alice", timeout_s=20)
    assert app.outcome(second.request_id) is Outcome.APPLIED
    assert [version.number for version in app.versions("alice")] == [1]
    assert app.chat("alice", "hello").adapter_version == 1
    assert app.forget("alice").num_versions == 1
    with pytest.raises(NotFound):
        app.user("alice")


def test_streams_whole_and_left_early(app, server):
    request = ChatRequest((Message("user", "hello"),), "bob")
    assert "".join(chunk.text for chunk in app.stream(request)) == "[base] You said: hello"
    chunks = app.stream(request)
    next(chunks)
    chunks.close()
    assert app.model() == "echo"


def test_a_closed_client_says_so(server):
    app = SyncRemotePersonalizer(server.url, server.service.app_key)
    app.close()
    app.close()
    with pytest.raises(Cancelled):
        app.user("alice")


def test_nobody_there():
    with SyncRemotePersonalizer("http://127.0.0.1:9", "key", timeout_s=2) as app, pytest.raises(Unreachable):
        app.user("alice")


def test_a_stream_that_outlives_the_client_says_so(app):
    stream = app.stream(ChatRequest((Message("user", "hello"),), "carol"))
    next(stream)
    app.close()
    with pytest.raises(Cancelled, match="closed"):
        next(stream)
    stream.close()


class Silent(httpx2.AsyncBaseTransport):
    """A server that does not answer; whether closing the connection breaks what is asked is up to the network."""

    def __init__(self, breaks: bool):
        self.asked = threading.Event()
        self._breaks = breaks
        self._closed = asyncio.Event()

    async def handle_async_request(self, request):
        self.asked.set()
        await self._closed.wait()
        raise httpx2.ReadError("closed")

    async def aclose(self):
        if self._breaks:
            self._closed.set()


@pytest.mark.parametrize("breaks", [True, False])
def test_close_lets_a_waiting_thread_go(breaks):
    silent, errors = Silent(breaks), []
    app = SyncRemotePersonalizer("http://test", "key", transport=silent)

    def wait() -> None:
        try:
            app.user("alice")
        except Exception as error:
            errors.append(error)

    waiter = threading.Thread(target=wait, daemon=True)
    waiter.start()
    assert silent.asked.wait(5)
    app.close()
    waiter.join(5)
    assert [(type(error), str(error)) for error in errors] == [(Cancelled, "this client is closed")]
