"""The blocking twin over a real socket."""

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
