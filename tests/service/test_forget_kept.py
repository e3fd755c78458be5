"""What a learner keeps of conversations goes with their user, whichever process forgets him."""

import asyncio

from personalize.backends.echo import EchoBackend
from tests.service.support import opened, taught


class Remembering(EchoBackend):
    """Keeps the users of whom it has learnt, as a learner with a warm teacher does."""

    def __init__(self):
        super().__init__()
        self.kept: set[str] = set()

    async def run_update(self, lessons, parents, out_dirs):
        self.kept |= {lesson.user_id for lesson in lessons}
        return await super().run_update(lessons, parents, out_dirs)

    def remembered_users(self):
        return frozenset(self.kept)

    async def forget_user(self, user_id):
        self.kept.discard(user_id)


def test_who_is_forgotten_here_is_kept_no_more_and_the_neighbour_is(tmp_path):
    backend = Remembering()

    async def main():
        async with opened(tmp_path, backend) as app:
            for user in ("alice", "bob"):
                await taught(app, user=user)
            alice, bob = (app.store.find_user(user).user_id for user in ("alice", "bob"))
            assert backend.kept == {alice, bob}, "a lesson names its user"
            await app.forget("alice")
            assert backend.kept == {bob}

    asyncio.run(main())


def test_who_is_only_kept_by_the_learner_is_held(tmp_path):
    """His adapter was let go of, nothing runs for him: another process's erasure must still be looked for."""
    backend = Remembering()

    async def main():
        async with opened(tmp_path, backend) as app:
            await taught(app)
            (alice,) = backend.kept
            backend._loaded.clear()
            assert alice in app._forgetting.held()
            await app._forgetting.let_go(alice)
            assert not backend.kept and alice not in app._forgetting.held()

    asyncio.run(main())
