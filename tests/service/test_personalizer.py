"""The SDK's surface: opening, versions, management, bad input, a full disk."""

import asyncio
import zipfile

import pytest

from personalize import Personalizer, ServiceSettings, Settings
from personalize.backends.echo import EchoBackend, write_folder
from personalize.errors import (
    AdapterCorrupt,
    AdapterMismatch,
    ContextTooLong,
    InvalidParameter,
    NotFound,
    PersonalizeError,
    StorageUnavailable,
    UnsupportedParameter,
)
from personalize.types import ChatRequest, Message, Outcome, SamplingParams, UserId
from tests.service.support import Disk, ask, opened, says, store_on, taught


def run(work, home, *args, **options):
    async def main():
        async with opened(home, *args, **options) as app:
            return await work(app)

    return asyncio.run(main())


def test_open_works_both_ways(tmp_path):
    settings = Settings(model="echo", backend="echo", home=tmp_path / "new" / "home")

    async def main():
        async with Personalizer.open(settings=settings) as app:
            first = await app.chat("alice", "hello")
        app = await Personalizer.open(settings=settings)
        again = await app.chat(
            "alice", [Message("user", "hello"), Message("assistant", first.text), Message("user", "ok")]
        )
        await app.aclose()
        await app.aclose()
        return again

    assert asyncio.run(main()).outcome is Outcome.QUEUED


def test_a_store_that_cannot_be_opened_is_a_typed_error(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    settings = Settings(model="echo", backend="echo", home=tmp_path / "file")
    with pytest.raises(StorageUnavailable):
        asyncio.run(Personalizer.open(settings=settings)._start())


def test_versions_can_be_asked_for_rolled_back_to_undone_and_reset(tmp_path):
    async def work(app):
        for number in range(3):
            await taught(app, f"question {number}")
        assert [(v.number, v.parent, v.is_head) for v in await app.versions("alice")] == [
            (3, 2, True), (2, 1, False), (1, None, False),
        ]  # fmt: skip
        for version, text in (("head", "[v3]"), ("base", "[base]"), (2, "[v2]")):
            reply = await ask(app, "hello", version=version)
            assert reply.text.startswith(text)
        assert (await app.rollback("alice", 1)).is_head
        assert (await ask(app, "hi")).adapter_version == 1
        assert await app.undo("alice") is None
        assert (await ask(app, "hi")).adapter_version is None
        await app.rollback("alice", 3)
        assert (await app.undo("alice")).number == 2
        await app.reset("alice")
        assert (await ask(app, "hi")).adapter_version is None
        await taught(app, "once more")
        assert (await app.user("alice")).head == 4
        await app.pin("alice", 1)
        assert [version.pinned for version in await app.versions("alice")] == [False, False, False, True]

    run(work, tmp_path)


def test_a_reply_of_an_old_version_teaches_the_head(tmp_path):
    async def work(app):
        await taught(app)
        await taught(app, "question")
        old = await ask(app, "tell me", version=1)
        after = await ask(app, "tell me", old.text, "shorter")
        assert await app.settled("alice", 20) and await app.outcome(after.request_id) is Outcome.APPLIED
        newest = (await app.versions("alice"))[0]
        assert (newest.number, newest.parent) == (3, 2)

    run(work, tmp_path)


def test_users_updates_and_their_owners(tmp_path):
    async def work(app):
        after = await taught(app)
        await ask(app, "hello", user="bob")
        alice = await app.user("alice")
        assert (alice.learning, alice.consent, alice.head, alice.num_turns, alice.num_updates) == (
            "active",
            None,
            1,
            2,
            1,
        )
        assert await app.user(UserId(alice.user_id)) == alice
        listed = await app.users()
        assert [user.user_id for user in listed] == sorted(user.user_id for user in listed) and len(listed) == 2
        assert await app.users(limit=1, after=listed[0].user_id) == (listed[1],)
        (update,) = await app.updates("alice")
        assert (update.outcome, update.version, update.request_id) == (Outcome.APPLIED, 1, after.request_id)
        assert update.metrics["signal"] == 1.0 and update.finished_s >= update.created_s
        assert await app.update(update.update_id) == update
        assert await app.update_owner(update.update_id) == alice.user_id
        assert await app.outcome_owner(after.request_id) == alice.user_id
        anonymous = await ask(app, "hello", user=None)
        assert await app.outcome_owner(anonymous.request_id) is None
        assert (await app.pause("alice")).learning == "paused"
        assert (await app.resume("alice")).learning == "active"

    run(work, tmp_path)


def test_management_of_nobody_is_not_found(tmp_path):
    async def work(app):
        calls = (app.user, app.versions, app.updates, app.undo, app.reset, app.pause, app.resume, app.settled)
        for call in calls:
            with pytest.raises(NotFound):
                await call("nobody")
        for call in (app.rollback, app.pin):
            with pytest.raises(NotFound):
                await call("nobody", 1)
        with pytest.raises(NotFound):
            await app.export("nobody", tmp_path / "out.zip")
        with pytest.raises(NotFound):
            await app.update("0" * 32)
        with pytest.raises(NotFound):
            await app.chat(UserId("0" * 32), "hello")
        assert await app.users() == ()

    run(work, tmp_path)


def test_the_memory_of_earlier_turns_reaches_the_learner(tmp_path):
    lessons = []
    backend = EchoBackend(lambda lesson: lessons.append(lesson) or Outcome.APPLIED)

    async def work(app):
        for number in range(3):
            await taught(app, f"question {number}", f"shorter {number}")
        *_, last = lessons
        assert [turn.follow_up for turn in last.memory] == ["shorter 0", "shorter 1"]
        assert last.state.block == tuple(turn.turn_id for turn in last.memory)
        assert last.experience.messages == (Message("user", "question 2"),)
        assert last.experience.prompt_ids == app._opened.renderer.render(last.experience.messages)

    run(work, tmp_path, backend)


def test_export_holds_everything_and_an_import_serves(tmp_path):
    async def work(app):
        await taught(app, "my own words")
        path = await app.export("alice", tmp_path / "alice.zip")
        with zipfile.ZipFile(path) as archive:
            assert any(name.endswith("adapter_model.safetensors") for name in archive.namelist())
            assert any(b"my own words" in archive.read(name) for name in archive.namelist())
        write_folder(tmp_path / "from elsewhere", "seed")
        version = await app.import_("newcomer", tmp_path / "from elsewhere")
        assert (version.number, version.origin, version.is_head) == (1, "import", True)
        assert (await ask(app, "hello", user="newcomer")).text.startswith("[v1]")

    run(work, tmp_path / "home")


def test_a_hostile_folder_is_refused_and_nobody_is_affected(tmp_path):
    write_folder(tmp_path / "bad", "seed")
    (tmp_path / "bad" / "adapter_model.safetensors").write_bytes(b"\xff" * 100)

    async def work(app):
        await taught(app)
        for folder in ("bad", "missing"):
            with pytest.raises(AdapterCorrupt):
                await app.import_("alice", tmp_path / folder)
        assert (await ask(app, "hello")).adapter_version == 1

    run(work, tmp_path / "home")


def test_a_damaged_version_hurts_its_owner_only(tmp_path):
    async def work(app):
        await taught(app)
        await taught(app, user="bob")
        owner = app.store.find_user("alice").user_id
        for file in (tmp_path / "users" / owner / "versions").rglob("adapter_model.safetensors"):
            file.chmod(0o600)
            file.write_bytes(b"damaged")
        app._opened.inference._loaded.clear()
        with pytest.raises(AdapterCorrupt):
            await ask(app, "hello")
        assert (await ask(app, "hello", user="bob")).adapter_version == 1
        assert (await ask(app, "hello", version="base")).adapter_version is None

    run(work, tmp_path)


def request(**changes) -> ChatRequest:
    return ChatRequest(**{"messages": (Message("user", "hello"),), "user": "alice", **changes})


@pytest.mark.parametrize(
    "bad, error, words",
    [
        (request(messages=()), InvalidParameter, "at least one message"),
        (request(messages="hello"), InvalidParameter, "a list of messages"),
        (request(messages=(Message("user", " \n"),)), InvalidParameter, "not empty"),
        (request(messages=(Message("assistant", "hello"),)), InvalidParameter, "ends with a user message"),
        (request(messages=(Message("oracle", "hello"),)), InvalidParameter, "oracle"),
        (request(messages=(Message("user", "x" * 101),)), InvalidParameter, "101 characters.*at most 100"),
        (request(messages=(Message("user", "x"),) * 11), InvalidParameter, "11 messages.*at most 10"),
        (request(n=0), InvalidParameter, "n = 0.*1 to 3"),
        (request(n=4), InvalidParameter, "n = 4.*1 to 3"),
        (request(n=True), InvalidParameter, "n = True"),
        (request(user=""), InvalidParameter, "non-blank"),
        (request(user="x" * 257), InvalidParameter, "at most 256"),
        (request(version=0), InvalidParameter, "version = 0"),
        (request(version=10**30), InvalidParameter, "version = 1000"),
        (request(version="newest"), InvalidParameter, "'newest'.*'head', 'base'"),
        (request(version=1, user=None), InvalidParameter, "without a user"),
        (request(version=1, temporary=True), InvalidParameter, "temporary"),
        (request(version=7), NotFound, "no user|no such user|no version"),
        (request(sampling={"temperature": 3}), InvalidParameter, "SamplingParams"),
        (request(messages=({"role": "user", "content": [{"type": "image_url"}]},)), UnsupportedParameter, "image_url"),
    ],
    ids=lambda value: None,
)
def test_bad_input_is_a_typed_error_that_names_value_and_range(tmp_path, bad, error, words):
    async def work(app):
        with pytest.raises(error, match=words) as caught:
            await app.complete(bad)
        assert isinstance(caught.value, PersonalizeError)
        assert app.status()["outcomes"] == {} and await app.users() == ()

    run(work, tmp_path, max_message_chars=100, max_messages=10, max_choices=3)


def test_a_version_of_another_base_is_refused_and_an_unknown_one_not_found(tmp_path):
    async def other(app):
        with pytest.raises(AdapterMismatch):
            await ask(app, "hello", version=1)
        with pytest.raises(NotFound):
            await ask(app, "hello", version=2)

    run(taught, tmp_path)
    run(other, tmp_path, base_digest="f" * 64)


def test_the_context_bounds_prompt_and_reply(tmp_path):
    async def work(app):
        with pytest.raises(ContextTooLong, match="at most 49"):
            await ask(app, "x" * 60)
        reply = await ask(app, "x" * 30, sampling=SamplingParams(max_tokens=500))
        assert (reply.finish_reason, reply.usage.total_tokens) == ("length", 50)

    run(work, tmp_path, EchoBackend(max_model_len=50))


def test_the_default_cap_is_the_settings(tmp_path):
    async def work(app):
        assert (await ask(app, "hello")).usage.completion_tokens == 5
        assert (await app.chat("alice", "hello", max_tokens=7)).usage.completion_tokens == 7

    run(work, tmp_path, max_tokens=5)


def test_on_a_full_disk_chats_are_answered_and_learning_stops_visibly(tmp_path):
    disk = Disk()

    async def work(app):
        first = await ask(app, "hello")
        disk.used = 0.97
        assert (await ask(app, "hello", first.text, "shorter")).outcome is Outcome.SKIPPED_BUDGET
        assert "%" in app.status()["learning_paused_reason"] or "disk" in app.status()["learning_paused_reason"]
        disk.used = 0.2
        again = await ask(app, "hello", first.text, "shorter")
        assert again.outcome is Outcome.QUEUED and await app.settled("alice", 20)
        assert (await app.user("alice")).head == 1

    run(work, tmp_path, store=store_on(disk, tmp_path))


def test_when_nothing_can_be_written_chats_are_answered_and_only_writing_calls_fail(tmp_path, monkeypatch):
    from adapters_store.errors import StoreFull

    async def work(app):
        await taught(app)
        first = await ask(app, "hi")

        def full(*args, **kwargs):
            raise StoreFull("no space left")

        for name in ("record_turn", "queue_follow_up", "ensure_user", "import_version", "export_user", "stage"):
            monkeypatch.setattr(app.store, name, full)
        reply = await ask(app, "hi", first.text, "shorter")
        assert (reply.text, reply.turn_id) == ("[v1] You said: shorter", None)
        assert reply.outcome is Outcome.SKIPPED_BUDGET and await app.outcome(reply.request_id) is reply.outcome
        newcomer = await ask(app, "hello", user="newcomer")
        assert (newcomer.adapter_version, newcomer.outcome) == (None, Outcome.SKIPPED_BUDGET)
        with pytest.raises(StorageUnavailable):
            await app.import_("alice", tmp_path)
        with pytest.raises(StorageUnavailable):
            await app.export("alice", tmp_path / "x.zip")

    run(work, tmp_path)


def test_status_is_words_numbers_and_counts(tmp_path):
    async def work(app):
        await taught(app)
        status = app.status()
        assert status["lease"] == "serves and trains" and status["learning"] == "on"
        assert status["outcomes"] == {"skipped_first_message": 1, "queued": 1} and status["updates"] == {"applied": 1}
        assert status["journal_mode"] in ("wal", "delete") and status["pending_updates"] == 0
        user_id = app.store.find_user("alice").user_id
        assert "alice" not in repr(status) and user_id not in repr(status)
        for value in status.values():
            assert isinstance(value, str | int | float | bool | dict | None)

    run(work, tmp_path)


def test_settings_reach_the_backend():
    settings = Settings(backend="echo", service=ServiceSettings(learning="ask"))
    from personalize.backends import open_backend

    opened_backend = open_backend(settings)
    assert opened_backend.max_model_len > 1000 and opened_backend.max_batch >= 1
    assert says("hello").user == "alice"
