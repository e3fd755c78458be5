"""Streams: order of chunks, several choices, and readers that go away at every point."""

import asyncio
from dataclasses import dataclass, field

import pytest

from personalize.backends.echo import END, EchoBackend
from personalize.errors import Cancelled, ModelError, Overloaded
from personalize.service.exchange import Exchange
from personalize.types import GenerateRequest, Message, Outcome, SamplingParams, TokenChunk
from tests.service.support import ask, opened, says, until


def idle(app, backend) -> bool:
    return app._chats.idle and not (backend.num_running or backend.in_use)


async def turns(app, user="alice"):
    """The user's recorded turns, as (ids, text, finish reason)."""
    found = app.store.find_user(user)
    folder = app.settings.home / "users" / found.user_id / "turns"
    stored = [app.store.load_turn(file.stem) for file in folder.glob("*.json")]
    return sorted(((turn.completion_ids, turn.reply_text, turn.finish_reason) for turn in stored), key=str)


def test_start_then_text_then_the_reply(tmp_path):
    async def main():
        async with opened(tmp_path) as app:
            chunks = [chunk async for chunk in app.stream(says("hello"))]
        start, reply = chunks[0].start, chunks[-1].reply
        assert start and reply and [chunk for chunk in chunks[1:] if chunk.start] == []
        assert (start.request_id, start.adapter_version, start.outcome) == (reply.request_id, None, reply.outcome)
        assert "".join(chunk.text for chunk in chunks) == reply.text == "[base] You said: hello"
        assert reply.usage.completion_tokens == len(reply.text) + 1

    asyncio.run(main())


def test_a_follow_up_is_queued_at_the_first_token_and_not_before(tmp_path):
    async def main():
        async with opened(tmp_path, EchoBackend(delay_s=0.02), learns=False) as app:
            first = await ask(app, "hello")
            chunks = app.stream(says("hello", first.text, "shorter"))
            assert (await anext(chunks)).start.outcome is Outcome.QUEUED
            assert app.status()["pending_updates"] == 0
            assert (await anext(chunks)).text
            await until(lambda: app.status()["pending_updates"] == 1)
            assert [chunk.reply async for chunk in chunks][-1].outcome is Outcome.QUEUED

    asyncio.run(main())


def test_choices_are_turns_of_one_request_and_at_most_one_learns(tmp_path):
    async def main():
        async with opened(tmp_path) as app:
            replies = await app.complete(says("hello", n=3))
            assert len({reply.turn_id for reply in replies}) == 3
            assert len({reply.request_id for reply in replies}) == 1
            assert [reply.outcome for reply in replies] == [Outcome.SKIPPED_FIRST_MESSAGE] * 3
            assert app.status()["outcomes"] == {"skipped_first_message": 1}
            outcomes = [(await ask(app, "hello", reply.text, "shorter")).outcome for reply in replies]
            assert outcomes == [Outcome.QUEUED, Outcome.SKIPPED_DUPLICATE, Outcome.SKIPPED_DUPLICATE]

    asyncio.run(main())


def test_a_seed_is_counted_up_over_the_choices(tmp_path):
    async def main():
        async with opened(tmp_path) as app:
            admitted = app._admission.admit(says("hello", n=3, sampling=SamplingParams(seed=2**63 - 2)))
            assert [choice.sampling.seed for choice in admitted.choices()] == [2**63 - 2, 2**63 - 1, -(2**63)]

    asyncio.run(main())


async def read(app, user, num_chunks, how, seen):
    """Read so many chunks, then go away."""
    chunks = app.stream(says("héllo", user=user))
    try:
        for _ in range(num_chunks):
            seen.append(await anext(chunks))
        if how == "cancel":
            await asyncio.sleep(60)
    finally:
        await chunks.aclose()


async def leave(app, backend, num_chunks, how):
    """One reader who leaves; what he was shown is what is recorded, and nothing else is left of him."""
    user, seen = f"{how}{num_chunks}", []
    task = asyncio.create_task(read(app, user, num_chunks, how, seen))
    await until(lambda: len(seen) == num_chunks)
    if how == "cancel":
        task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await until(lambda: idle(app, backend))
    shown, ended = "".join(chunk.text for chunk in seen), seen[-1].reply is not None
    ((ids, text, reason),) = await turns(app, user)
    whole = tuple("[base] You said: héllo".encode())
    assert text == shown and reason == ("stop" if ended else "cancel")
    assert ids == ((*whole, END) if ended else tuple(shown.encode()))
    assert await app.outcome(seen[0].start.request_id) is Outcome.SKIPPED_FIRST_MESSAGE
    return ended


@pytest.mark.slow  # every point twice, each with its own user and synced files
def test_a_reader_who_leaves_at_any_point_leaves_nothing_behind(tmp_path):
    backend = EchoBackend(delay_s=0.0005)

    async def main():
        async with opened(tmp_path, backend) as app:
            ends = [await leave(app, backend, num, how) for num in range(1, 25) for how in ("close", "cancel")]
            assert sum(ends) == 2  # only the last chunk of all ends a reply
            assert app.status()["outcomes"] == {"skipped_first_message": len(ends)}

    asyncio.run(main())


def test_a_stream_that_nobody_began_to_read_leaves_nothing(tmp_path):
    backend = EchoBackend()

    async def main():
        async with opened(tmp_path, backend) as app:
            await app.stream(says("hello")).aclose()
            assert idle(app, backend) and app.status()["outcomes"] == {} and await app.users() == ()

    asyncio.run(main())


def test_a_reader_who_stops_reading_holds_nothing_up(tmp_path):
    backend = EchoBackend()

    async def main():
        async with opened(tmp_path, backend) as app:
            stalled = app.stream(says("hello"))
            await anext(stalled)
            await until(lambda: backend.num_running == 0)  # the row is free although nobody reads
            assert (await ask(app, "and me?", user="bob")).finish_reason == "stop"
            await asyncio.wait_for(app.aclose(), 10)
            with pytest.raises(Cancelled):
                await anext(stalled)

    asyncio.run(main())


def test_a_cut_reply_can_be_followed_up_and_its_end_is_not_trained(tmp_path):
    lessons = []
    backend = EchoBackend(lambda lesson: lessons.append(lesson) or Outcome.APPLIED)

    async def main():
        async with opened(tmp_path, backend) as app:
            chunks, text = app.stream(says("hello")), ""
            while len(text) < 8:
                text += (await anext(chunks)).text
            await chunks.aclose()
            await until(lambda: idle(app, backend))
            reply = await ask(app, "hello", text, "go on")
            assert reply.outcome is Outcome.QUEUED and await app.settled("alice", 20)
            (lesson,) = lessons
            assert lesson.experience.completion_ids == tuple(text.encode())
            assert lesson.experience.finish_reason == "cancel"

    asyncio.run(main())


def test_a_reader_who_leaves_before_the_first_token_still_taught_something(tmp_path):
    backend = EchoBackend(delay_s=0.05)

    async def main():
        async with opened(tmp_path, backend) as app:
            first = await ask(app, "hello")
            chunks = app.stream(says("hello", first.text, "shorter"))
            start = (await anext(chunks)).start
            await chunks.aclose()
            await until(lambda: idle(app, backend))
            assert await app.settled("alice", 20)
            assert await app.outcome(start.request_id) is Outcome.APPLIED
            again = await ask(app, "hello", first.text, "shorter")
            assert again.outcome is Outcome.SKIPPED_DUPLICATE

    asyncio.run(main())


@dataclass
class Failing(EchoBackend):
    """Fails after some chunks."""

    error: Exception
    after: int
    calls: list = field(default_factory=list)

    def __post_init__(self):
        super().__init__()

    async def generate(self, request: GenerateRequest):
        if request.adapter is None and self.after < 0:
            raise self.error
        number = 0
        async for chunk in super().generate(request):
            if number == self.after:
                raise self.error
            number += 1
            yield chunk


def test_a_request_that_the_engine_refuses_leaves_nothing_and_may_be_sent_again(tmp_path):
    backend = Failing(Overloaded("too many wait"), after=99)

    async def main():
        async with opened(tmp_path, backend) as app:
            first = await ask(app, "hello")
            backend.after = -1
            with pytest.raises(Overloaded):
                await ask(app, "hello", first.text, "shorter")
            assert app.status()["outcomes"] == {"skipped_first_message": 1}
            assert app.status()["pending_updates"] == 0 and idle(app, backend)
            backend.after = 99
            assert (await ask(app, "hello", first.text, "shorter")).outcome is Outcome.QUEUED

    asyncio.run(main())


def test_an_engine_that_fails_in_the_middle_gives_an_error_and_one_outcome(tmp_path):
    backend = Failing(ModelError("the engine fell over"), after=5)

    async def main():
        async with opened(tmp_path, backend) as app:
            with pytest.raises(ModelError):
                await ask(app, "hello")
            await until(lambda: idle(app, backend))
            assert app.status()["outcomes"] == {"skipped_first_message": 1}
            assert await turns(app) == [(tuple(b"[base"), "[base", "cancel")]

    asyncio.run(main())


def test_closing_the_service_cuts_what_runs_and_writes_it_down(tmp_path):
    async def main():
        async with opened(tmp_path, EchoBackend(delay_s=0.01)) as app:
            chunks = app.stream(says("hello"))
            for _ in range(4):
                await anext(chunks)
            closing = asyncio.create_task(app.aclose())
            with pytest.raises(Cancelled):
                while True:
                    await anext(chunks)
            await closing
            with pytest.raises(Cancelled):
                await ask(app, "hello")
        async with opened(tmp_path) as app:
            ((_, text, reason),) = await turns(app)
            assert "[base] You".startswith(text) and len(text) >= 3 and reason == "cancel"

    asyncio.run(main())


def test_a_chunk_that_ends_in_the_middle_of_a_character_is_cut_before_it(tmp_path):
    class Split(EchoBackend):
        async def generate(self, request):
            yield TokenChunk(tuple("né".encode()[:2]), "n")
            await asyncio.sleep(60)

    async def main():
        async with opened(tmp_path, Split()) as app:
            chunks = app.stream(says("hello"))
            await anext(chunks)
            assert (await anext(chunks)).text == "n"
            await chunks.aclose()
            await until(lambda: idle(app, app._opened.inference))
            assert await turns(app) == [((110,), "n", "cancel")]

    asyncio.run(main())


class Whole(EchoBackend):
    """The last chunk has text and completion, as an engine's has."""

    async def generate(self, request: GenerateRequest):
        last = TokenChunk((), "")
        async for chunk in super().generate(request):
            last = TokenChunk(last.token_ids + chunk.token_ids, last.text + chunk.text, None, chunk.completion)
        yield last


def test_a_reply_that_is_cut_before_its_end_was_read_is_one_turn_and_cancelled(tmp_path):
    async def main():
        async with opened(tmp_path, Whole()) as app:
            chunks = app.stream(says("hello"))
            await anext(chunks)
            assert (await anext(chunks)).text == "[base] You said: hello"
            await app._chats.cut("the service is closing")
            with pytest.raises(Cancelled):
                await anext(chunks)
            await until(lambda: idle(app, app._opened.inference))
            ((_, text, reason),) = await turns(app)
            assert (text, reason) == ("[base] You said: hello", "stop")

    asyncio.run(main())


def test_exchange_knows_whose_it_is(tmp_path):
    async def main():
        async with opened(tmp_path) as app:
            admitted = app._admission.admit(says("hello"))
            exchange = Exchange(
                admitted,
                app._opened.inference,
                app._opened.renderer,
                app._ledger,
                app._chats._spawn,
                app._consumer.wake,
            )
            assert exchange.user_id == (await app.user("alice")).user_id
            anonymous = app._admission.admit(says("hello", user=None))
            assert anonymous.user is None and anonymous.request.messages == (Message("user", "hello"),)

    asyncio.run(main())
