"""Many users at once, restarts, and two processes on one store."""

import asyncio
from collections import Counter

import pytest

from personalize.backends.echo import EchoBackend
from personalize.types import Message, Outcome
from tests.service.support import ask, made, opened, says, taught, until


async def conversation(app, user, num_turns, replies):
    """Chat on, always with the whole history; every reply has to be this user's own."""
    texts = []
    for number in range(num_turns):
        texts.append(f"{user} says {number}")
        reply = await ask(app, *texts, user=user)
        assert reply.text.endswith(f"You said: {user} says {number}")
        texts.append(reply.text)
        replies.append((user, reply))


@pytest.mark.slow  # some hundred files are synced to disk one by one
def test_twenty_users_at_once_and_every_request_ends_in_exactly_one_outcome(tmp_path):
    users, num_turns = [f"user{i}" for i in range(20)], 3

    async def main():
        backend = EchoBackend(max_num_seqs=8)
        async with opened(tmp_path, backend) as app:
            replies = []
            async with asyncio.TaskGroup() as group:
                for user in users:
                    group.create_task(conversation(app, user, num_turns, replies))
            assert await app.settled(timeout_s=60)
            finals = Counter([await app.outcome(reply.request_id) for _, reply in replies])
            assert finals == {Outcome.SKIPPED_FIRST_MESSAGE: 20, Outcome.APPLIED: 20 * (num_turns - 1)}
            assert len({reply.request_id for _, reply in replies}) == len(replies) == 20 * num_turns
            assert sum(app.status()["outcomes"].values()) == len(replies)
            assert app.status()["updates"] == {"applied": 20 * (num_turns - 1)}
            for user in users:
                assert [version.number for version in await app.versions(user)] == [2, 1]
            assert backend.num_running == 0 and not backend.in_use

    asyncio.run(main())


def test_one_update_at_a_time_per_user_and_one_batch_takes_many_users(tmp_path):
    batches = []

    class Watching(EchoBackend):
        async def run_update(self, lessons, parents, out_dirs):
            batches.append([lesson.experience.messages[0].content for lesson in lessons])
            return await super().run_update(lessons, parents, out_dirs)

    async def main():
        async with opened(tmp_path, Watching(), learns=False) as app:
            for _ in range(2):
                for user in ("alice", "bob", "carol"):
                    await conversation(app, user, 2, [])
            app.start()
            assert await app.settled(timeout_s=20)
            assert [len(batch) for batch in batches] == [3, 3]
            assert all(len(set(batch)) == 3 for batch in batches)

    asyncio.run(main())


def test_the_queue_survives_a_restart_and_is_applied_once(tmp_path):
    async def first():
        async with opened(tmp_path, learns=False) as app:
            reply = await ask(app, "hello")
            after = await ask(app, "hello", reply.text, "shorter")
            assert app.status()["pending_updates"] == 1
            return after.request_id

    async def then(request_id):
        async with opened(tmp_path) as app:
            assert await app.settled(timeout_s=20)
            assert await app.outcome(request_id) is Outcome.APPLIED
            assert [version.number for version in await app.versions("alice")] == [1]
            retried = await ask(app, "hello", "[base] You said: hello", "shorter")
            assert retried.outcome is Outcome.SKIPPED_DUPLICATE
            assert await app.settled(timeout_s=20)
            assert [version.number for version in await app.versions("alice")] == [1]

    request_id = asyncio.run(first())
    asyncio.run(then(request_id))
    asyncio.run(then(request_id))


def test_closing_in_the_middle_of_an_update_gives_it_back(tmp_path):
    class Slow(EchoBackend):
        async def run_update(self, lessons, parents, out_dirs):
            await asyncio.sleep(60)
            raise AssertionError("never finishes")

    async def first():
        async with opened(tmp_path, Slow()) as app:
            reply = await ask(app, "hello")
            after = await ask(app, "hello", reply.text, "shorter")
            await until(lambda: app.status()["running_updates"] == 1)
            return after.request_id

    async def then(request_id):
        async with opened(tmp_path) as app:
            assert await app.settled("alice", timeout_s=20)
            assert await app.outcome(request_id) is Outcome.APPLIED
            (update,) = await app.updates("alice")
            assert update.version == 1

    asyncio.run(then(asyncio.run(first())))
    assert not list((tmp_path / "staging").glob("*/*"))


def test_the_second_process_serves_and_queues_and_says_that_another_one_trains(tmp_path):
    async def main():
        async with opened(tmp_path) as first:
            await until(lambda: first.status()["lease_held"])
            async with opened(tmp_path) as second:
                await asyncio.sleep(0.1)
                status = second.status()
                assert not status["lease_held"]
                assert status["lease"].startswith("serves and queues; another process trains")
                reply = await ask(second, "hello")
                after = await ask(second, "hello", reply.text, "shorter")
                assert after.outcome is Outcome.QUEUED
                assert await second.settled("alice", timeout_s=20)
                assert second.status()["updates"] == {} and first.status()["updates"] == {"applied": 1}
                for app in (first, second):  # both see the new head at once
                    assert (await ask(app, "and now?")).adapter_version == 1
                await second.reset("alice")
                assert (await ask(first, "and now?")).adapter_version is None

    asyncio.run(main())


def test_the_second_process_takes_over_when_the_first_one_closes(tmp_path):
    async def main():
        first, second = made(tmp_path), made(tmp_path)
        for app in (first, second):
            app._consumer.lease._ttl_s = 0.3
            app.start()
            await asyncio.sleep(0.05)
        assert first.status()["lease_held"] and not second.status()["lease_held"]
        await first.aclose()
        await until(lambda: second.status()["lease_held"])
        await taught(second)
        assert (await second.user("alice")).head == 1
        await second.aclose()

    asyncio.run(main())


def test_replies_go_on_while_an_update_runs(tmp_path):
    release = asyncio.Event()

    class Slow(EchoBackend):
        async def run_update(self, lessons, parents, out_dirs):
            await release.wait()
            return await super().run_update(lessons, parents, out_dirs)

    async def main():
        async with opened(tmp_path, Slow()) as app:
            reply = await ask(app, "hello")
            await ask(app, "hello", reply.text, "shorter")
            await until(lambda: app.status()["running_updates"] == 1)
            assert not await app.settled("alice", timeout_s=0.05)
            assert (await ask(app, "meanwhile")).adapter_version is None
            stream = app.stream(says("a stream that begins on the old head"))
            start = (await anext(stream)).start
            release.set()
            assert await app.settled("alice", timeout_s=20)
            replies = [chunk.reply async for chunk in stream if chunk.reply]
            assert start.adapter_version is None and replies[0].adapter_version is None
            assert (await ask(app, "afterwards")).adapter_version == 1

    asyncio.run(main())


def test_history_of_any_form_is_parsed_before_it_is_paired(tmp_path):
    async def main():
        async with opened(tmp_path) as app:
            first = await app.chat("alice", "hello")
            raw = [
                {"role": "developer", "content": "today is Friday"},
                {"role": "user", "content": [{"type": "text", "text": "hello "}], "name": None},
                {"role": "assistant", "content": first.text, "tool_calls": None},
                Message("user", "shorter\r\n"),
            ]
            assert (await app.chat("alice", raw)).outcome is Outcome.QUEUED

    asyncio.run(main())
