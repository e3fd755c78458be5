"""Noticing what another process has erased: who moved is looked at, everybody now and then, and nobody is missed."""

import asyncio
from types import SimpleNamespace

from personalize.backends.echo import BASE_DIGEST
from personalize.service.erasures import Erasures
from tests.service.support import opened, taught, until


def held_by(app) -> tuple[Erasures, set[str], list[str], list[str]]:
    """Erasures that look every fourth time at everybody; who is held, who was looked at, who was let go of."""
    held, looked_at, gone = set(), [], []

    def get_user(user_id):
        looked_at.append(user_id)
        return app.store.get_user(user_id)

    async def let_go(user_id):
        gone.append(user_id)

    store = SimpleNamespace(
        change_counter=app.store.change_counter, heads_moved_since=app.store.heads_moved_since, get_user=get_user
    )
    return Erasures(store, lambda: set(held), let_go, poll_s=0, looks_per_sweep=4), held, looked_at, gone


def test_only_who_has_moved_is_looked_at(tmp_path):
    async def main():
        async with opened(tmp_path) as app:
            for user in ("alice", "bob"):
                await taught(app, user=user)
            alice, bob = (app.store.find_user(user).user_id for user in ("alice", "bob"))
            erasures, held, looked_at, gone = held_by(app)
            held |= {alice, bob}
            await erasures._look()
            assert set(looked_at) == {alice, bob} and not gone  # the first look knows of nothing before it
            looked_at.clear()
            await erasures._look()
            assert not looked_at
            app.store.reset(bob, BASE_DIGEST)
            app.store.forget(alice)
            await erasures._look()
            assert set(looked_at) == {alice, bob} and gone == [alice]

    asyncio.run(main())


def test_who_comes_to_be_held_after_the_move_was_read_is_found_by_the_sweep(tmp_path):
    async def main():
        async with opened(tmp_path) as app:
            await taught(app)
            alice = app.store.find_user("alice").user_id
            erasures, held, _, gone = held_by(app)
            await erasures._look()
            app.store.forget(alice)
            await erasures._look()
            held.add(alice)
            await erasures._look()
            assert not gone
            await erasures._look()
            assert gone == [alice]

    asyncio.run(main())


def test_what_goes_wrong_is_tried_again_for_everybody(tmp_path):
    async def main():
        async with opened(tmp_path) as app:
            await taught(app)
            alice = app.store.find_user("alice").user_id
            erasures, held, _, gone = held_by(app)
            held.add(alice)
            let_go, failures = erasures._let_go, iter([RuntimeError("the engine is busy")])

            async def fails_once(user_id):
                for failure in failures:
                    raise failure
                await let_go(user_id)

            erasures._let_go = fails_once
            await erasures._look()
            app.store.forget(alice)
            looking = asyncio.create_task(erasures.run())
            await until(lambda: alice in gone)
            looking.cancel()

    asyncio.run(main())
