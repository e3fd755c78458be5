"""Forgetting through the service: nothing is left, and nothing comes back."""

import asyncio

import pytest

from adapters_store import errors as stored
from personalize.backends.echo import EchoBackend
from personalize.errors import Cancelled, NotFound, PersonalizeError, StorageUnavailable
from personalize.types import Outcome
from tests.service.support import HeldUp, ask, opened, says, taught, until

CANARY = "CANARY-7f3a-heliotrope"


def holders(home, *needles: str) -> list[str]:
    """Files whose name or bytes hold one of the needles."""
    found = []
    for file in home.rglob("*"):
        raw = file.read_bytes() if file.is_file() else b""
        if any(needle in file.name or needle.encode() in raw for needle in needles):
            found.append(str(file.relative_to(home)))
    return found


def id_of(app, user="alice") -> str:
    return app.store.find_user(user).user_id


def test_nothing_of_the_user_is_left_and_the_neighbour_is_untouched(tmp_path):
    backend = EchoBackend()

    async def main():
        async with opened(tmp_path, backend) as app:
            await taught(app, f"my secret is {CANARY}", f"never say {CANARY}")
            await taught(app, "hello", user="bob")
            before = (await app.versions("bob"))[0]
            await ask(app, "warm")
            user_id = id_of(app)
            assert holders(tmp_path, CANARY) and holders(tmp_path, user_id)
            receipt = await app.forget("alice")
            assert (receipt.num_turns, receipt.num_versions, receipt.num_updates) == (3, 1, 1)
            assert holders(tmp_path, CANARY) == []
            assert not any(user_id in name for name in backend._loaded)
            with pytest.raises(NotFound):
                await app.user("alice")
            assert (await app.versions("bob"))[0] == before
            back = await ask(app, f"my secret is {CANARY[:6]}", "…", "who am I?")
            assert (back.adapter_version, back.outcome) == (None, Outcome.SKIPPED_NOT_OUR_REPLY)
            assert id_of(app) != user_id
        assert [name for name in holders(tmp_path, CANARY)] == []

    asyncio.run(main())


def test_an_update_under_way_cannot_bring_the_user_back(tmp_path):
    class Slow(EchoBackend):
        started, release = asyncio.Event(), asyncio.Event()

        async def run_update(self, lessons, parents, out_dirs):
            self.started.set()
            await self.release.wait()
            return await super().run_update(lessons, parents, out_dirs)

    backend = Slow()

    async def main():
        async with opened(tmp_path, backend) as app:
            reply = await ask(app, f"my secret is {CANARY}")
            after = await ask(app, f"my secret is {CANARY}", reply.text, f"never say {CANARY}")
            await backend.started.wait()
            user_id = id_of(app)
            forgetting = asyncio.create_task(app.forget("alice"))
            await until(lambda: app.store.find_user("alice") is None)
            backend.release.set()
            await forgetting
            assert holders(tmp_path, CANARY) == []
            assert [name for name in holders(tmp_path, user_id) if not name.startswith(("staging", "index"))] == []
            assert not list(tmp_path.glob(f"staging/{user_id}/*"))
            assert app.status()["updates"] == {"cancelled_erasure": 1}
            assert await app.settled(timeout_s=5)
            with pytest.raises(NotFound):
                await app.outcome(after.request_id)
            assert not backend._loaded

    asyncio.run(main())


def test_a_running_stream_is_cut_and_leaves_nothing(tmp_path):
    backend = EchoBackend(delay_s=0.01)

    async def main():
        async with opened(tmp_path, backend) as app:
            await taught(app)
            chunks = app.stream(says(f"tell me about {CANARY}"))
            for _ in range(5):
                await anext(chunks)
            assert backend.in_use
            await app.forget("alice")
            assert not backend.in_use and not backend.num_running
            with pytest.raises(Cancelled, match="forgotten"):
                while True:
                    await anext(chunks)
            assert holders(tmp_path, CANARY) == []

    asyncio.run(main())


def test_forgetting_at_any_moment_of_many_chats(tmp_path):
    """Whatever a chat meets, it ends in an answer or a typed error, and the old user's text is gone."""
    backend = EchoBackend(delay_s=0.0005)

    async def chat(app, number, ended):
        try:
            first = await ask(app, f"{number} {CANARY}")
            await ask(app, f"{number} {CANARY}", first.text, "shorter")
        except PersonalizeError as error:
            ended.append(error.code)
        else:
            ended.append("answered")

    async def main():
        async with opened(tmp_path, backend) as app:
            ended: list[str] = []
            chats = [asyncio.create_task(chat(app, number, ended)) for number in range(8)]
            for _ in range(3):
                await asyncio.sleep(0.05)
                if app.store.find_user("alice"):
                    await app.forget("alice")
            await asyncio.gather(*chats)
            assert len(ended) == 8 and set(ended) <= {"answered", "cancelled", "not_found"}
            if app.store.find_user("alice"):
                await app.forget("alice")
            assert holders(tmp_path, CANARY) == []
            assert (await app.users()) == ()
            assert backend.num_running == 0 and not backend.in_use

    asyncio.run(main())


def test_who_is_unknown_cannot_be_forgotten(tmp_path):
    async def main():
        async with opened(tmp_path) as app:
            with pytest.raises(NotFound):
                await app.forget("nobody")

    asyncio.run(main())


@pytest.mark.parametrize("refused", ["versions", "forget"])
def test_whom_the_store_refuses_to_erase_is_a_user_as_before(tmp_path, monkeypatch, refused):
    def busy(user_id):
        raise stored.StorageUnavailable("the database does not work (busy)")

    async def main():
        async with opened(tmp_path) as app:
            await taught(app)
            with monkeypatch.context() as patch:
                patch.setattr(app.store, refused, busy)
                with pytest.raises(StorageUnavailable):
                    await app.forget("alice")
            async with asyncio.timeout(10):
                assert (await ask(app, "still me?")).adapter_version == 1
                await taught(app, "another question")
            assert (await app.forget("alice")).num_versions == 2

    asyncio.run(main())


def test_who_is_gone_although_a_trace_resists_is_let_go_of(tmp_path, monkeypatch):
    backend = EchoBackend()

    async def main():
        async with opened(tmp_path, backend) as app:
            await taught(app)
            forget = app.store.forget

            def resists(user_id):
                forget(user_id)
                raise stored.StorageUnavailable("the disk refuses to work")

            monkeypatch.setattr(app.store, "forget", resists)
            with pytest.raises(StorageUnavailable):
                await app.forget("alice")
            assert not backend._loaded and await app.users() == ()

    asyncio.run(main())


def test_a_cancelled_forget_ends_what_it_has_begun(tmp_path, monkeypatch):
    backend = EchoBackend()

    async def main():
        async with opened(tmp_path, backend) as app:
            await taught(app)
            app._loops[-1].cancel()  # which looks for the erasures of others, and would find this one too
            erasure = HeldUp(app.store.forget)
            monkeypatch.setattr(app.store, "forget", erasure)
            forgetting = asyncio.create_task(app.forget("alice"))
            await erasure.is_reached()
            forgetting.cancel()
            erasure.through.set()
            with pytest.raises(asyncio.CancelledError):
                await forgetting
            assert not backend._loaded and await app.users() == ()

    asyncio.run(main())
