import asyncio
import json
from collections.abc import AsyncGenerator

import pytest

from personalize.errors import Overloaded
from personalize.types import Outcome, Reply, ReplyChunk, ReplyStart, Usage
from server.chat_response import ChunkWriter
from server.events import DONE, KEEP_ALIVE, Pulled, events

START = ReplyStart("r1", 3, Outcome.QUEUED)


def reply(text: str, index_tokens: int = 2) -> Reply:
    return Reply(text, "stop", "r1", "t1", 3, Outcome.QUEUED, Usage(5, index_tokens))


async def collect(source: AsyncGenerator[ReplyChunk], *, usage: bool = False, keep_alive_s: float = 5.0) -> list[str]:
    writer = ChunkWriter(START, model="m", base="m", include_usage=usage)
    lines = events(Pulled(source), writer, keep_alive_s=keep_alive_s, done=lambda replies: None)
    return [line async for line in lines]


def objects(lines: list[str]) -> list[dict]:
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]


async def two_choices() -> AsyncGenerator[ReplyChunk]:
    yield ReplyChunk("Hel", 0)
    yield ReplyChunk("Yo", 1, reply("Yo", 1))
    yield ReplyChunk("lo", 0, reply("Hello"))


def test_deltas_ends_usage_and_done():
    lines = asyncio.run(collect(two_choices(), usage=True))
    chunks = objects(lines)
    assert lines[-1] == DONE
    assert [c["choices"][0]["delta"] for c in chunks if c["choices"]] == [
        {"role": "assistant", "content": "Hel"},
        {"role": "assistant", "content": "Yo"},
        {},
        {"content": "lo"},
        {},
    ]
    assert chunks[-1]["usage"] == {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    assert all(c["usage"] is None for c in chunks[:-1])
    assert all(c["system_fingerprint"] == "m@v3" for c in chunks)


def test_without_include_usage_no_chunk_mentions_it():
    assert not any("usage" in chunk for chunk in objects(asyncio.run(collect(two_choices()))))


def test_a_choice_without_text_still_names_its_role():
    async def silent() -> AsyncGenerator[ReplyChunk]:
        yield ReplyChunk("", 0, reply(""))

    assert objects(asyncio.run(collect(silent())))[0]["choices"][0]["delta"] == {"role": "assistant"}


@pytest.mark.parametrize("text", ["a\u2028b\u2029c\x85d", "cut \ud83d", "Zoë 😀"])
def test_every_event_is_one_line_whatever_a_client_takes_for_a_line_end(text):
    async def saying() -> AsyncGenerator[ReplyChunk]:
        yield ReplyChunk(text, 0)
        yield ReplyChunk("", 0, reply(text))

    lines = asyncio.run(collect(saying()))
    assert all(line.isascii() and len(line.splitlines()) == 2 for line in lines)
    assert objects(lines)[0]["choices"][0]["delta"]["content"] == text


def test_comments_keep_a_slow_stream_alive_and_lose_nothing():
    async def slow() -> AsyncGenerator[ReplyChunk]:
        await asyncio.sleep(0.12)
        yield ReplyChunk("late", 0, reply("late"))

    lines = asyncio.run(collect(slow(), keep_alive_s=0.03))
    assert lines[0] == KEEP_ALIVE and lines.count(KEEP_ALIVE) >= 2
    assert objects(lines)[0]["choices"][0]["delta"]["content"] == "late"


def test_an_error_becomes_an_object_and_no_done_follows():
    async def breaking() -> AsyncGenerator[ReplyChunk]:
        yield ReplyChunk("a", 0)
        raise Overloaded("full")

    lines = asyncio.run(collect(breaking()))
    assert objects(lines)[-1]["error"]["code"] == "overloaded"
    assert DONE not in lines


def test_an_unforeseen_error_does_not_tell_its_message():
    async def breaking() -> AsyncGenerator[ReplyChunk]:
        yield ReplyChunk("a", 0)
        raise ValueError("the user's diary")

    lines = asyncio.run(collect(breaking()))
    assert objects(lines)[-1]["error"]["code"] == "error"
    assert "diary" not in "".join(lines)


def test_hanging_up_in_the_middle_of_a_pull_closes_the_source():
    closed = []

    async def endless() -> AsyncGenerator[ReplyChunk]:
        try:
            yield ReplyChunk("a", 0)
            await asyncio.sleep(60)
        finally:
            closed.append(True)

    async def hang_up() -> None:
        task = asyncio.create_task(collect(endless()))
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(hang_up())
    assert closed == [True]
