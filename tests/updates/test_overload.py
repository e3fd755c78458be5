"""Follow-ups come faster than they can be learnt from: the service's own queue, with a clock that is set by hand."""

import asyncio
from dataclasses import dataclass

from adapters_store import LocalBlobs, Store
from personalize.backends.echo import EchoBackend
from personalize.types import Outcome
from tests.service.support import ask, opened, until


@dataclass
class Clock:
    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Busy(EchoBackend):
    """A learner that is not done before it may be."""

    def __init__(self):
        super().__init__()
        self.started, self.may_end = asyncio.Event(), asyncio.Event()

    async def run_update(self, lessons, parents, out_dirs):
        self.started.set()
        await self.may_end.wait()
        return await super().run_update(lessons, parents, out_dirs)


async def follow_up(app, user, words):
    reply = await ask(app, f"hello, {words}", user=user)
    return await ask(app, f"hello, {words}", reply.text, words, user=user)


def pass_by(clock, store, app, seconds):
    """Let time go by with the lease held all along: its own heartbeat goes by another clock."""
    for _ in range(seconds // 10):
        clock.now += 10
        assert store.acquire_lease(app._consumer.lease.owner, 15)


def test_who_waits_for_a_minute_has_an_outcome_while_the_learner_is_still_busy(tmp_path):
    async def main():
        clock, backend = Clock(), Busy()
        store = Store.open(f"sqlite:///{tmp_path / 'index.sqlite'}", LocalBlobs(tmp_path), clock=clock)
        async with opened(tmp_path, backend, store=store) as app:
            app._consumer._poll_s = 0.01
            await until(lambda: app.status()["lease_held"])
            runs = await follow_up(app, "ann", "be brief with me, please")
            await backend.started.wait()
            waits = [await follow_up(app, user, "use lists with me, please") for user in ("ann", "bob")]
            pass_by(clock, store, app, 40)
            newer = await follow_up(app, "ann", "speak in rhymes with me, please")
            pass_by(clock, store, app, 30)

            async def outcomes():
                return [await app.outcome(one.request_id) for one in (runs, *waits, newer)]

            async with asyncio.timeout(20):
                while (await outcomes())[2] is Outcome.QUEUED:
                    await asyncio.sleep(0.01)
            expected = [Outcome.QUEUED, Outcome.SUPERSEDED, Outcome.SKIPPED_BUDGET, Outcome.QUEUED]
            assert await outcomes() == expected
            assert app._consumer.outcomes[Outcome.SKIPPED_BUDGET] == 1
            backend.may_end.set()
            assert await app.settled(timeout_s=20)
            assert (await outcomes())[0] is Outcome.APPLIED and (await outcomes())[3] is Outcome.APPLIED

    asyncio.run(main())


def test_without_a_limit_everybody_waits(tmp_path):
    async def main():
        clock, backend = Clock(), Busy()
        store = Store.open(f"sqlite:///{tmp_path / 'index.sqlite'}", LocalBlobs(tmp_path), clock=clock)
        async with opened(tmp_path, backend, store=store, max_update_wait_s=None) as app:
            await until(lambda: app.status()["lease_held"])
            await follow_up(app, "ann", "be brief with me, please")
            await backend.started.wait()
            waits = await follow_up(app, "bob", "use lists with me, please")
            clock.now += 10_000
            store.acquire_lease(app._consumer.lease.owner, 600)
            assert store.shed_updates(app._consumer.lease.owner) == {}
            assert await app.outcome(waits.request_id) is Outcome.QUEUED
            backend.may_end.set()
            assert await app.settled(timeout_s=20)
            assert await app.outcome(waits.request_id) is Outcome.APPLIED

    asyncio.run(main())
