"""The same steps against the embedded object and the remote client: the same values and errors come back."""

import asyncio
import inspect
import zipfile
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import httpx2
import pytest

from personalize import errors
from personalize.backends.echo import write_folder
from personalize.remote import RemotePersonalizer, SyncRemotePersonalizer
from personalize.service import Personalizer
from personalize.types import ChatRequest, Message, Outcome, SamplingParams, UserId
from tests.server.serving import Service, opened

HELLO = (Message("user", "hello"),)


def run_with(kind: str, home, work: Callable[[Any, Service], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with opened(home) as service:
            if kind == "embedded":
                return await work(service.personalizer, service)
            options = {"transport": httpx2.ASGITransport(service.app)}
            if kind == "remote":
                async with RemotePersonalizer("http://test", service.admin, **options) as remote:
                    return await work(remote, service)
            raise AssertionError(kind)

    asyncio.run(main())


@pytest.fixture(params=["embedded", "remote"])
def with_app(request, tmp_path):
    return lambda work: run_with(request.param, tmp_path, work)


def test_every_shared_method_takes_the_same_arguments():
    for name, method in inspect.getmembers(RemotePersonalizer, inspect.isfunction):
        twin = getattr(Personalizer, name, None)
        if name.startswith("_") or name == "model" or twin is None:
            continue
        assert (
            list(inspect.signature(method).parameters)
            == list(inspect.signature(twin).parameters)[: len(inspect.signature(method).parameters)]
        ), name


def test_the_blocking_twin_has_every_method():
    names = {n for n, _ in inspect.getmembers(RemotePersonalizer, inspect.isfunction) if not n.startswith("_")}
    assert names - {"aclose"} <= set(dir(SyncRemotePersonalizer))


def test_the_whole_life_of_a_user(with_app):
    async def work(app, service: Service) -> None:
        first = await app.chat("a/b ö", "hello", max_tokens=100)
        assert (first.text, first.finish_reason, first.adapter_version) == ("[base] You said: hello", "stop", None)
        assert first.outcome is Outcome.SKIPPED_FIRST_MESSAGE and first.turn_id
        said = [*HELLO, Message("assistant", first.text), Message("user", "shorter")]
        second = await app.complete(ChatRequest(tuple(said), "a/b ö"))
        assert second[0].outcome is Outcome.QUEUED
        assert await app.settled("a/b ö", timeout_s=20)
        assert await app.outcome(second[0].request_id) is Outcome.APPLIED
        (update,) = await app.updates("a/b ö")
        assert await app.update(update.update_id) == update and update.version == 1
        explained = await app.explain("a/b ö", update.update_id, probe="a/b?")
        assert explained == await service.personalizer.explain("a/b ö", update.turn_id, probe="a/b?")
        assert explained.probe.after == "[v1] You said: a/b?" and explained.effect.tokens
        (version,) = await app.versions("a/b ö")
        assert version.is_head and version.number == 1 and version.base_digest
        assert (await app.chat("a/b ö", list(HELLO))).text == "[v1] You said: hello"
        assert (await app.chat("a/b ö", [{"role": "user", "content": "hi"}], version="base")).adapter_version is None
        assert await app.undo("a/b ö") is None
        assert (await app.rollback("a/b ö", 1)).number == 1
        assert await app.reset("a/b ö") is None
        info = await app.user("a/b ö")
        assert (info.head, info.num_turns, info.num_updates, info.learning) == (None, 4, 1, "active")
        assert await app.user(UserId(info.user_id)) == info
        assert (await app.pause("a/b ö")).learning == "paused"
        assert (await app.resume("a/b ö")).learning == "active"
        assert (await app.consent("a/b ö", True)).consent is True
        assert [user.user_id for user in await app.users()] == [info.user_id]
        receipt = await app.forget("a/b ö")
        assert (receipt.num_turns, receipt.num_versions) == (4, 1)
        assert await app.users() == ()

    with_app(work)


def test_one_turn_is_taken_back(with_app):
    async def work(app, service: Service) -> None:
        for question in ("one", "two", "three"):
            first = await app.chat("a/b ö", question)
            said = [Message("user", question), Message("assistant", first.text), Message("user", f"shorter {question}")]
            await app.chat("a/b ö", said)
            assert await app.settled("a/b ö", timeout_s=20)
        _, second, first = await app.updates("a/b ö")
        planned = await app.undo_turn("a/b ö", second.turn_id, dry_run=True)
        assert (planned.status, planned.start, planned.num_turns) == ("planned", 1, 1)
        report = await app.undo_turn("a/b ö", second.update_id)
        assert (report.status, report.turn_id, report.version) == ("recomputed", second.turn_id, 4)
        assert report.outcomes == {"applied": 1} and (await app.user("a/b ö")).head == 4
        with pytest.raises(errors.Conflict, match="undone already"):
            await app.undo_turn("a/b ö", second.turn_id)
        service.personalizer.store._drop_conversation(report.user_id, (await app.updates("a/b ö"))[0].turn_id)
        with pytest.raises(errors.Gone):
            await app.undo_turn("a/b ö", first.turn_id)

    with_app(work)


def test_streams(with_app):
    async def work(app, service: Service) -> None:
        request = ChatRequest(HELLO, "alice", SamplingParams(seed=1), n=2)
        chunks = [chunk async for chunk in app.stream(request)]
        assert chunks[0].start is not None and chunks[0].start.adapter_version is None
        texts = {i: "".join(c.text for c in chunks if c.index == i) for i in (0, 1)}
        replies = {c.index: c.reply for c in chunks if c.reply is not None}
        for index in (0, 1):
            reply = replies[index]
            assert reply is not None and reply.text == texts[index] == "[base] You said: hello"
            assert reply.request_id == chunks[0].start.request_id
            assert reply.usage.prompt_tokens > 0 and reply.usage.completion_tokens > 0
        whole = await app.complete(replace(request, user="bob"))
        assert [r.text for r in whole] == [replies[0].text, replies[1].text]
        assert whole[0].usage == replies[0].usage

    with_app(work)


def test_versions_go_out_and_come_in(with_app, tmp_path):
    async def work(app, service: Service) -> None:
        write_folder(tmp_path / "in", "elsewhere")
        for user in ("alice", "b/o b"):
            await service.access.create_key("user", user)
        first = await app.import_("alice", tmp_path / "in")
        assert (first.number, first.origin, first.is_head) == (1, "import", True)
        path = await app.export_version("alice", 1, tmp_path / "v.zip")
        assert path == tmp_path / "v.zip" and path.stat().st_mode & 0o077 == 0
        taken = await app.import_("b/o b", str(path))
        assert taken.digest == first.digest
        assert (await app.pin("b/o b", 1)).pinned and not (await app.pin("b/o b", 1, False)).pinned
        everything = await app.export("alice", str(tmp_path / "alice.zip"))
        with zipfile.ZipFile(everything) as archive:
            assert "user.json" in archive.namelist()
        before = path.read_bytes()
        with pytest.raises(errors.InvalidRequest, match="does not exist yet"):
            await app.export_version("alice", 1, path)
        assert path.read_bytes() == before
        with pytest.raises(errors.NotFound):
            await app.export_version("alice", 9, tmp_path / "nine.zip")
        (tmp_path / "in" / "train.py").write_text("")
        for source, error in (
            (tmp_path / "in", errors.AdapterCorrupt),
            (tmp_path / "missing", errors.AdapterCorrupt),
            (tmp_path / "alice.zip", errors.AdapterCorrupt),
            (_for_another_base(tmp_path / "wide"), errors.AdapterMismatch),
        ):
            with pytest.raises(error):
                await app.import_("alice", source)
        assert [version.number for version in await app.versions("alice")] == [1]
        assert {item.name for item in tmp_path.glob("*.zip*")} == {"v.zip", "alice.zip"}

    with_app(work)


def _for_another_base(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("personalize.backends.echo._WIDTH", 6)
        write_folder(folder, "seed")
    return folder


def test_a_key_that_may_not_import_is_told_so_and_leaves_no_file(tmp_path):
    async def main() -> None:
        async with opened(tmp_path / "home") as service:
            await service.access.create_key("user", "alice")
            _, other = await service.access.create_key("user", "bob")
            options = {"transport": httpx2.ASGITransport(service.app)}
            write_folder(tmp_path / "in", "seed")
            async with RemotePersonalizer("http://test", service.app_key, **options) as app:
                with pytest.raises(errors.PermissionDenied):
                    await app.import_("alice", tmp_path / "in")
            async with RemotePersonalizer("http://test", other, **options) as app:
                with pytest.raises(errors.NotFound):
                    await app.export("alice", tmp_path / "out.zip")
            assert not list(tmp_path.glob("out*"))

    asyncio.run(main())


def test_too_many_requests_of_one_user_are_a_typed_error(tmp_path):
    async def main() -> None:
        async with opened(tmp_path, service={"max_requests_per_user": 1}) as service:
            service.personalizer._opened.inference._delay_s = 0.005
            async with RemotePersonalizer(
                "http://test", service.admin, transport=httpx2.ASGITransport(service.app)
            ) as app:
                answers = await asyncio.gather(*(app.chat("alice", "hello") for _ in range(3)), return_exceptions=True)
        refused = [answer for answer in answers if isinstance(answer, errors.TooManyRequests)]
        assert len(refused) == 2 and all(error.retry_after_s >= 1 for error in refused)

    asyncio.run(main())


IMAGE = [{"role": "user", "content": [{"type": "image_url"}]}]
REFUSED = [
    (lambda app: app.user("nobody"), errors.NotFound),
    (lambda app: app.versions("nobody"), errors.NotFound),
    (lambda app: app.forget("nobody"), errors.NotFound),
    (lambda app: app.rollback("alice", 99), errors.NotFound),
    (lambda app: app.rollback("alice", 0), errors.InvalidParameter),
    (lambda app: app.pin("alice", 99), errors.NotFound),
    (lambda app: app.pin("alice", 0), errors.InvalidParameter),
    (lambda app: app.update("0" * 32), errors.NotFound),
    (lambda app: app.explain("alice", "0" * 32), errors.NotFound),
    (lambda app: app.explain("alice", "newest"), errors.InvalidParameter),
    (lambda app: app.explain("alice", probe=" "), errors.InvalidParameter),
    (lambda app: app.explain("alice", probe="привет " * 20_000), errors.InvalidParameter),
    (lambda app: app.user("x" * 70_000), errors.InvalidParameter),
    (lambda app: app.undo_turn("alice", "0" * 32), errors.NotFound),
    (lambda app: app.undo_turn("alice", "newest"), errors.InvalidParameter),
    (lambda app: app.outcome("0" * 32), errors.NotFound),
    (lambda app: app.chat("alice", ""), errors.InvalidParameter),
    (lambda app: app.chat("alice", []), errors.InvalidParameter),
    (lambda app: app.chat("alice", None), errors.InvalidParameter),
    (lambda app: app.chat("alice", {"role": "user", "content": "hi"}), errors.InvalidParameter),
    (lambda app: app.chat("alice", [3]), errors.InvalidParameter),
    (lambda app: app.chat("alice", [{"role": "user", "content": b"hi"}]), errors.InvalidParameter),
    (lambda app: app.chat("alice", "hi", max_tokens=float("nan")), errors.InvalidParameter),
    (lambda app: app.chat("alice", "hi", sampling={"seed": 1}), errors.InvalidParameter),
    (lambda app: app.chat("x" * 300, "hi"), errors.InvalidParameter),
    (lambda app: app.chat("alice", "hi", version=7), errors.NotFound),
    (lambda app: app.chat("alice", "x" * 90_000), errors.ContextTooLong),
    (lambda app: app.chat("alice", IMAGE), errors.UnsupportedParameter),
    (lambda app: app.users(limit=0), errors.InvalidParameter),
]


def test_the_same_errors(with_app):
    async def work(app, service: Service) -> None:
        await service.access.create_key("user", "alice")
        for call, error in REFUSED:
            with pytest.raises(error) as caught:
                await call(app)
            assert caught.value.code == error.code and caught.value.message

    with_app(work)


def test_half_a_surrogate_pair_is_replaced(with_app):
    async def work(app, service: Service) -> None:
        assert (await app.chat("alice", "ü \ud83d")).text == "[base] You said: ü \ufffd"

    with_app(work)


def test_leaving_a_stream_early_cuts_the_reply(with_app):
    async def work(app, service: Service) -> None:
        service.personalizer._opened.inference._delay_s = 0.002
        chunks = app.stream(ChatRequest(HELLO, "alice"))
        async for chunk in chunks:
            if chunk.text:
                break
        await chunks.aclose()
        for _ in range(500):
            if service.personalizer._chats.idle:
                break
            await asyncio.sleep(0.01)
        assert service.personalizer._opened.inference.num_running == 0

    with_app(work)
