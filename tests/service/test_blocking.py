"""The blocking twin has every method of the core, and nothing of its own."""

import asyncio
import inspect
import threading

import pytest

from personalize import ChatRequest, Message, Outcome, Personalizer, Settings, SyncPersonalizer
from personalize.errors import Cancelled, NotFound


@pytest.fixture
def app(tmp_path):
    with SyncPersonalizer.open(settings=Settings(model="echo", backend="echo", home=tmp_path)) as app:
        yield app


def public(cls) -> set[str]:
    return {name for name in dir(cls) if not name.startswith("_")}


def test_every_method_of_the_core_is_there_with_the_same_parameters():
    assert public(Personalizer) - {"aclose", "start"} == public(SyncPersonalizer) - {"close"}
    for name in public(SyncPersonalizer) - {"close", "open", "store"}:
        theirs, ours = getattr(Personalizer, name), getattr(SyncPersonalizer, name)
        assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters), name
        assert ours.__doc__


def test_the_whole_loop(app):
    first = app.chat("alice", "hello")
    conversation = [Message("user", "hello"), Message("assistant", first.text), Message("user", "shorter")]
    second = app.chat("alice", conversation)
    assert second.outcome is Outcome.QUEUED and app.settled("alice", 20)
    assert app.outcome(second.request_id) is Outcome.APPLIED
    assert app.chat("alice", "again").adapter_version == 1
    assert app.status()["updates"] == {"applied": 1}
    assert app.forget("alice").num_versions == 1
    with pytest.raises(NotFound):
        app.user("alice")


def test_a_stream_is_a_plain_iterator(app):
    chunks = list(app.stream(ChatRequest((Message("user", "hello"),), "alice")))
    assert chunks[0].start is not None
    assert "".join(chunk.text for chunk in chunks) == chunks[-1].reply.text == "[base] You said: hello"


def test_leaving_a_stream_early_cuts_the_reply(app):
    text = ""
    chunks = app.stream(ChatRequest((Message("user", "hello"),), "alice"))
    for chunk in chunks:
        text += chunk.text
        if len(text) >= 5:
            break
    chunks.close()
    cut = [Message("user", "hello"), Message("assistant", text), Message("user", "go on")]
    assert app.chat("alice", cut).outcome is Outcome.QUEUED


def test_a_reply_left_by_break_is_cut_before_the_next_call(app):
    text = ""
    for chunk in app.stream(ChatRequest((Message("user", "hello"),), "alice")):
        text += chunk.text
        if len(text) >= 5:
            break
    cut = [Message("user", "hello"), Message("assistant", text), Message("user", "go on")]
    assert app.chat("alice", cut).outcome is Outcome.QUEUED


def test_several_threads_may_use_it(app):
    replies = {}

    def talk(user):
        replies[user] = app.chat(user, f"I am {user}").text

    threads = [threading.Thread(target=talk, args=(f"user{i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert replies == {f"user{i}": f"[base] You said: I am user{i}" for i in range(8)}


def test_after_close_every_call_says_so_and_the_thread_is_gone(tmp_path):
    app = SyncPersonalizer.open(settings=Settings(model="echo", backend="echo", home=tmp_path))
    app.close()
    app.close()
    with pytest.raises(Cancelled):
        app.chat("alice", "hello")
    with pytest.raises(Cancelled):
        next(app.stream(ChatRequest((Message("user", "hello"),), "alice")))
    assert not app._thread._thread.is_alive()


def test_a_stream_that_outlives_the_service_says_so(app):
    stream = app.stream(ChatRequest((Message("user", "hello"),), "alice"))
    next(stream)
    app.close()
    with pytest.raises(Cancelled, match="closed"):
        next(stream)
    stream.close()


def test_close_lets_a_thread_go_that_waits_for_an_update(app):
    begun, errors = threading.Event(), []

    async def endless(*work):
        begun.set()
        await asyncio.Event().wait()

    def wait() -> None:
        try:
            app.settled("alice")
        except Cancelled as error:
            errors.append(error)

    first = app.chat("alice", "hello")
    app._app._opened.trainer.run_update = endless
    app.chat("alice", [Message("user", "hello"), Message("assistant", first.text), Message("user", "shorter")])
    waiter = threading.Thread(target=wait, daemon=True)
    assert begun.wait(10)
    waiter.start()
    app.close()
    waiter.join(10)
    assert len(errors) == 1


def test_an_opening_that_fails_leaves_no_thread(tmp_path):
    (tmp_path / "file").write_text("")
    before = threading.active_count()
    with pytest.raises(Exception, match="cannot be made"):
        SyncPersonalizer.open(settings=Settings(model="echo", backend="echo", home=tmp_path / "file"))
    assert threading.active_count() == before
