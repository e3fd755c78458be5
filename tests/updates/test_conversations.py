"""Which conversations a user is likely to go on with, and who is told."""

import asyncio

from personalize.backends.echo import EchoBackend
from personalize.updates import conversations
from tests.service.support import ask, opened


class Told(EchoBackend):
    def __init__(self):
        super().__init__()
        self.asked = []

    async def prefill_again(self, ref, conversations):
        self.asked.append((ref.number, list(conversations)))


def test_a_publish_tells_the_engine_of_the_users_newest_conversations(tmp_path):
    backend = Told()

    async def main():
        async with opened(tmp_path, backend) as app:
            other = await ask(app, "something else")
            first = await ask(app, "hello")
            await ask(app, "hello", user="bob")
            after = await ask(app, "hello", first.text, "shorter")
            assert await app.settled(timeout_s=20)
            turns = [app.store.load_turn(reply.turn_id) for reply in (after, first, other)]
            ids = [(*turn.prompt_ids, *turn.completion_ids) for turn in turns]
            ((number, told),) = backend.asked
            # The answer to the follow-up may be recorded before or after its own lesson has been learnt.
            assert number == 1 and told[0] in ids[:2] and told[1] == ids[2] and len(told) == 2
            user = app.store.find_user("alice")
            version = app.store.version(user.user_id, 1)
            assert conversations.warm_conversations(app.store, version) == (ids[0], ids[2])
            usage = after.usage
            assert (usage.prompt_tokens, usage.completion_tokens) == (
                len(turns[0].prompt_ids),
                len(turns[0].completion_ids),
            ), "what is computed in idle time is nobody's usage"

    asyncio.run(main())


def test_old_conversations_and_those_with_another_base_are_left_alone(tmp_path, monkeypatch):
    async def main():
        async with opened(tmp_path) as app:
            first = await ask(app, "hello")
            await ask(app, "hello", first.text, "shorter")
            assert await app.settled(timeout_s=20)
            version = app.store.version(app.store.find_user("alice").user_id, 1)
            assert len(conversations.warm_conversations(app.store, version)) == 1
            assert app.store.newest_turns(version.user_id, 5, within_s=-1.0) == []
            monkeypatch.setattr(conversations, "WARM_S", -1.0)
            assert conversations.warm_conversations(app.store, version) == ()
            monkeypatch.undo()
            object.__setattr__(version, "base_digest", "c" * 64)
            assert conversations.warm_conversations(app.store, version) == ()

    asyncio.run(main())


def test_a_fault_in_telling_costs_no_version(tmp_path):
    class Faulty(EchoBackend):
        async def prefill_again(self, ref, conversations):
            raise RuntimeError("no")

    async def main():
        async with opened(tmp_path, Faulty()) as app:
            first = await ask(app, "hello")
            await ask(app, "hello", first.text, "shorter")
            assert await app.settled(timeout_s=20)
            assert (await ask(app, "hello")).adapter_version == 1

    asyncio.run(main())
