"""Opening and closing when they are cancelled: nothing stays open, and nobody is told so too early."""

import asyncio
import threading

import pytest

from adapters_store.errors import StoreClosed
from personalize import Personalizer, Settings
from personalize.backends.echo import EchoBackend
from personalize.service import personalizer
from tests.service.support import HeldUp, ask, made


def writers() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "store-writer"}


@pytest.mark.parametrize("stage", ["open_backend", "open_store", "remember_base"])
@pytest.mark.parametrize("times", [1, 2])
def test_a_cancelled_opening_leaves_nothing_open(tmp_path, monkeypatch, stage, times):
    step, before, num_closed = HeldUp(getattr(personalizer, stage)), writers(), 0

    async def aclose(backend):
        nonlocal num_closed
        num_closed += 1

    monkeypatch.setattr(personalizer, stage, step)
    monkeypatch.setattr(EchoBackend, "aclose", aclose)

    async def main():
        settings = Settings(model="echo", backend="echo", home=tmp_path)
        opening = asyncio.create_task(Personalizer.open(settings=settings)._start())
        await step.is_reached()
        for _ in range(times):
            opening.cancel()
            await asyncio.sleep(0)
        step.through.set()
        with pytest.raises(asyncio.CancelledError):
            await opening
        assert num_closed == 1 and writers() == before

    asyncio.run(main())


def test_a_cancelled_close_goes_on_and_the_next_call_waits_for_it(tmp_path, monkeypatch):
    async def main():
        app = made(tmp_path)
        app.start()
        await ask(app, "hello")
        end = HeldUp(app.store.close, first=True)
        monkeypatch.setattr(app.store, "close", end)
        first = asyncio.create_task(app.aclose())
        await end.is_reached()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        second = asyncio.create_task(app.aclose())
        await asyncio.sleep(0.05)
        assert not second.done()
        end.through.set()
        await second
        with pytest.raises(StoreClosed):
            app.store.ensure_user("bob")

    asyncio.run(main())
