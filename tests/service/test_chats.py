"""What happens to requests between their arrival and their first token."""

import asyncio
import threading
from dataclasses import dataclass, field

import pytest

from adapters_store import errors as stored
from personalize.errors import Cancelled, StorageUnavailable
from personalize.service import chats
from personalize.service.admission import Admission, Admitted
from personalize.types import ChatRequest
from tests.service.support import HeldUp, ask, opened, says


@dataclass
class Gate:
    """An admission whose first request is admitted, and then waits to be let through."""

    admission: Admission
    reached: threading.Event = field(default_factory=threading.Event)
    through: threading.Event = field(default_factory=threading.Event)
    num_admitted: int = 0

    def admit(self, request: ChatRequest) -> Admitted:
        admitted = self.admission.admit(request)
        self.num_admitted += 1
        if self.num_admitted == 1:
            self.reached.set()
            assert self.through.wait(20)
        return admitted


def test_a_request_that_is_being_admitted_when_the_service_closes_is_refused(tmp_path):
    async def main():
        async with opened(tmp_path) as app:
            gate = app._chats._admission = Gate(app._admission)
            asking = asyncio.create_task(app.complete(says("hello")))
            assert await asyncio.to_thread(gate.reached.wait, 20)
            closing = asyncio.create_task(app.aclose())
            await asyncio.sleep(0)
            assert app._chats.closed
            gate.through.set()
            with pytest.raises(Cancelled, match="closed"):
                await asking
            await closing
            with pytest.raises(Cancelled, match="closed"):
                await app.complete(says("hello"))
            assert gate.num_admitted == 1 and app._chats.idle

    asyncio.run(main())


def test_who_is_forgotten_while_being_admitted_comes_back_as_a_new_user(tmp_path):
    async def main():
        async with opened(tmp_path) as app:
            await ask(app, "hello")
            before = await app.user("alice")
            gate = app._chats._admission = Gate(app._admission)
            asking = asyncio.create_task(app.complete(says("hello again")))
            assert await asyncio.to_thread(gate.reached.wait, 20)
            await app.forget("alice")
            gate.through.set()
            (reply,) = await asking
            after = await app.user("alice")
            assert gate.num_admitted == 2
            assert after.user_id != before.user_id and after.num_turns == 1
            assert app.store.load_turn(reply.turn_id).user_id == after.user_id

    asyncio.run(main())


def test_who_asks_while_he_is_being_forgotten_waits_for_the_end_of_that(tmp_path, monkeypatch):
    def busy(user_id):
        raise stored.StorageUnavailable("the database does not work (busy)")

    async def main():
        async with opened(tmp_path) as app:
            await ask(app, "hello")
            before = await app.user("alice")
            erasure = HeldUp(busy, first=True)
            monkeypatch.setattr(app.store, "forget", erasure)
            forgetting = asyncio.create_task(app.forget("alice"))
            await erasure.is_reached()
            asking = asyncio.create_task(ask(app, "hello again"))
            await asyncio.sleep(0.1)
            assert not asking.done()
            erasure.through.set()
            with pytest.raises(StorageUnavailable):
                await forgetting
            assert (await asking).text and (await app.user("alice")).user_id == before.user_id

    asyncio.run(main())


def test_who_is_being_forgotten_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(chats, "MAX_ADMISSIONS", 3)
    monkeypatch.setattr(chats, "PAUSE_S", 0.0)

    async def main():
        async with opened(tmp_path) as app:
            await ask(app, "hello")
            app._forgotten.add((await app.user("alice")).user_id)
            with pytest.raises(Cancelled, match="being forgotten"):
                await ask(app, "hello again")
            assert (await ask(app, "hello", user="bob")).text

    asyncio.run(main())
