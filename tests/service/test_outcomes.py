"""Every word of the closed list, reached through the service with the real store."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from personalize.backends.echo import EchoBackend
from personalize.types import ChatRequest, Message, Outcome, SamplingParams
from tests.service.support import Disk, ask, opened, says, store_on, taught

Scenario = Callable[[Path], Awaitable[tuple[Outcome, Outcome]]]
SCENARIOS: dict[Outcome, Scenario] = {}
LONG = "a message that is long enough to be found by the text of its reply alone"


def scenario(outcome: Outcome):
    """A function that returns (the outcome the reply carried, the one that is on record in the end)."""

    def add(work: Scenario) -> Scenario:
        SCENARIOS[outcome] = work
        return work

    return add


async def final(app, reply) -> tuple[Outcome, Outcome]:
    return reply.outcome, await app.outcome(reply.request_id)


async def followed(app, *, first="hello", then="shorter", options=None, user="alice"):
    """A first message, and a follow-up with ``options``."""
    reply = await ask(app, first, user=user)
    return await ask(app, first, reply.text, then, **{"user": user, **(options or {})})


@scenario(Outcome.QUEUED)
async def queued(home):
    async with opened(home, learns=False) as app:
        return await final(app, await followed(app))


@scenario(Outcome.APPLIED)
async def applied(home):
    async with opened(home) as app:
        return await final(app, await taught(app))


@scenario(Outcome.SKIPPED_FIRST_MESSAGE)
async def first_message(home):
    async with opened(home) as app:
        return await final(app, await ask(app, "hello"))


@scenario(Outcome.SKIPPED_LEARNING_OFF)
async def learning_off(home):
    async with opened(home) as app:
        return await final(app, await followed(app, options={"learn": False}))


@scenario(Outcome.SKIPPED_TOOL_TURN)
async def tool_turn(home):
    async with opened(home) as app:
        first = await ask(app, "hello")
        history = (Message("user", "hello"), Message("assistant", first.text), Message("tool", "42"))
        (reply,) = await app.complete(ChatRequest((*history, Message("user", "so?")), "alice"))
        return await final(app, reply)


@scenario(Outcome.SKIPPED_NO_CONSENT)
async def no_consent(home):
    async with opened(home, learning="ask") as app:
        return await final(app, await followed(app))


@scenario(Outcome.SKIPPED_PAUSED)
async def paused(home):
    async with opened(home) as app:
        await ask(app, "hello")
        await app.pause("alice")
        return await final(app, await followed(app))


@scenario(Outcome.SKIPPED_TEMPORARY)
async def temporary(home):
    async with opened(home) as app:
        return await final(app, await followed(app, options={"temporary": True}))


@scenario(Outcome.SKIPPED_ANONYMOUS)
async def anonymous(home):
    async with opened(home) as app:
        return await final(app, await followed(app, options={"user": None}))


@scenario(Outcome.SKIPPED_NOT_OUR_REPLY)
async def not_our_reply(home):
    async with opened(home) as app:
        return await final(app, await ask(app, "never asked", "never answered like this", "shorter"))


@scenario(Outcome.SKIPPED_AMBIGUOUS_REPLY)
async def ambiguous_reply(home):
    async with opened(home) as app:
        replies = [(await ask(app, context, "…", LONG)).text for context in ("one", "two")]
        assert replies[0] == replies[1]
        return await final(app, await ask(app, "summary", replies[0], "shorter"))


@scenario(Outcome.SKIPPED_EDITED_HISTORY)
async def edited_history(home):
    async with opened(home) as app:
        await ask(app, "hello")
        return await final(app, await ask(app, "hello", "what the client made of it", "shorter"))


def judged(outcome: Outcome) -> Scenario:
    async def run(home):
        async with opened(home, EchoBackend(lambda lesson: outcome)) as app:
            reply = await taught(app)
            assert not await app.versions("alice")
            return await final(app, reply)

    return run


for verdict in Outcome:
    if verdict.startswith("rejected_") or verdict in (Outcome.SKIPPED_LOW_SIGNAL, Outcome.SKIPPED_PRAISE):
        SCENARIOS[verdict] = judged(verdict)


@scenario(Outcome.SKIPPED_CAPPED_REPLY)
async def capped_reply(home):
    async with opened(home) as app:
        first = await ask(app, "hello", sampling=SamplingParams(max_tokens=10))
        return await final(app, await ask(app, "hello", first.text, "go on"))


@scenario(Outcome.SKIPPED_TOO_LONG)
async def too_long(home):
    async with opened(home, EchoBackend(max_model_len=420)) as app:
        reply = await followed(app, then="x" * 300)
        assert await app.settled("alice", 20)
        return await final(app, reply)


@scenario(Outcome.SKIPPED_DUPLICATE)
async def duplicate(home):
    async with opened(home) as app:
        await taught(app)
        return await final(app, await followed_again(app))


async def followed_again(app):
    return await ask(app, "hello", "[base] You said: hello", "an edited follow-up")


@scenario(Outcome.SKIPPED_BUDGET)
async def budget(home):
    disk = Disk()
    async with opened(home, store=store_on(disk, home)) as app:
        first = await ask(app, "hello")
        disk.used = 0.95
        assert app.status()["learning_paused_reason"]
        return await final(app, await ask(app, "hello", first.text, "shorter"))


@scenario(Outcome.SKIPPED_NO_ADAPTER_FOR_BASE)
async def no_adapter_for_base(home):
    async with opened(home) as app:
        await taught(app)
    async with opened(home, base_digest="f" * 64) as app:
        reply = await followed(app, first="another")
        assert reply.adapter_version is None
        return await final(app, reply)


@scenario(Outcome.SUPERSEDED)
async def superseded(home):
    async with opened(home, learns=False, max_queued_updates=1) as app:
        oldest = await followed(app, first="one")
        await followed(app, first="two")
        return await final(app, oldest)


@scenario(Outcome.CANCELLED_ROLLBACK)
async def cancelled_rollback(home):
    async with opened(home, learns=False) as app:
        waiting = await followed(app)
        await app.reset("alice")
        return await final(app, waiting)


@scenario(Outcome.CANCELLED_ERASURE)
async def cancelled_erasure(home):
    async with opened(home, learns=False) as app:  # nor does it look for erasures, which would cut the stream
        first = await ask(app, "hello")
        chunks = app.stream(says("hello", first.text, "shorter"))
        await anext(chunks)  # accepted; and now another process forgets the user
        user = app.store.find_user("alice")
        assert user is not None
        app.store.forget(user.user_id)
        replies = [chunk.reply async for chunk in chunks if chunk.reply]
        assert replies[0].turn_id is None
        return await final(app, replies[0])


@scenario(Outcome.FAILED)
async def failed(home):
    def broken(lesson):
        raise RuntimeError("the learner is broken")

    async with opened(home, EchoBackend(broken)) as app:
        reply = await taught(app)
        (update,) = await app.updates("alice")
        assert app.status()["last_fault"] == "RuntimeError" and update.version is None
        return await final(app, reply)


@pytest.mark.parametrize("outcome", Outcome)
def test_outcome(outcome, tmp_path):
    carried, recorded = asyncio.run(SCENARIOS[outcome](tmp_path))
    assert recorded is outcome
    assert carried in (outcome, Outcome.QUEUED)  # what a reply says is final, or waits for the update


def test_the_outcome_of_an_unknown_request_is_not_invented(tmp_path):
    from personalize.errors import NotFound

    async def main():
        async with opened(tmp_path) as app:
            with pytest.raises(NotFound):
                await app.outcome("0" * 32)

    asyncio.run(main())


def test_consent_opens_learning_and_a_refusal_closes_it_under_every_setting(tmp_path):
    async def main():
        async with opened(tmp_path, learning="ask") as app:
            assert (await app.consent("alice", True)).consent is True
            assert (await taught(app)).outcome is Outcome.QUEUED
            assert (await app.user("alice")).head == 1
        async with opened(tmp_path, learning="on") as app:
            await app.consent("alice", False)
            assert (await followed(app, first="other")).outcome is Outcome.SKIPPED_NO_CONSENT

    asyncio.run(main())


def test_what_is_withdrawn_while_it_waits_is_not_learnt(tmp_path):
    async def main():
        async with opened(tmp_path, learns=False) as app:
            waiting = await followed(app)
            await app.pause("alice")
            app.start()
            assert await app.settled("alice", 20)
            assert await app.outcome(waiting.request_id) is Outcome.SKIPPED_PAUSED
            assert await app.versions("alice") == ()

    asyncio.run(main())


def test_a_reset_begins_on_the_new_base_and_the_old_head_is_kept(tmp_path):
    async def main():
        async with opened(tmp_path) as app:
            await taught(app)
        async with opened(tmp_path, base_digest="f" * 64) as app:
            await app.reset("alice")
            await taught(app, first="another")
            assert (await ask(app, "now")).adapter_version == 2
        async with opened(tmp_path) as app:
            assert (await ask(app, "back")).adapter_version == 1

    asyncio.run(main())
