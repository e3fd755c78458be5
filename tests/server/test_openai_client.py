"""The real ``openai`` client, unmodified, over a socket."""

import asyncio
import threading
import time
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from server.app import KEEP_ALIVE_S
from tests.server.serving import Socket, listening

HELLO: list[Any] = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def socket(tmp_path_factory):
    with listening(tmp_path_factory.mktemp("home")) as socket:
        yield socket


@pytest.fixture
def client(socket: Socket):
    with OpenAI(base_url=f"{socket.url}/v1", api_key=socket.service.app_key, max_retries=0) as client:
        yield client


def test_plain(client: OpenAI):
    answer = client.chat.completions.create(model="echo", messages=HELLO, user="plain")
    assert answer.choices[0].message.content == "[base] You said: hello"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0
    assert answer.system_fingerprint == "echo@base"
    assert answer.model_extra is not None
    assert answer.model_extra["personalization"]["outcome"] == "skipped_first_message"
    assert answer._request_id == answer.model_extra["personalization"]["request_id"]


def test_streamed_text_equals_the_plain_one_and_usage_comes_last(client: OpenAI):
    stream = client.chat.completions.create(
        model="echo", messages=HELLO, user="streamed", stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "[base] You said: hello"
    assert [chunk.choices[0].delta.role for chunk in chunks if chunk.choices].count("assistant") == 1
    assert chunks[-1].choices == [] and chunks[-1].usage is not None
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"


def test_the_stream_helper_of_the_client_puts_it_together(client: OpenAI):
    with client.chat.completions.stream(model="echo", messages=HELLO, user="helper") as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == "[base] You said: hello"


def test_stop_and_length(client: OpenAI):
    stopped = client.chat.completions.create(model="echo", messages=HELLO, stop="said")
    assert (stopped.choices[0].message.content, stopped.choices[0].finish_reason) == ("[base] You ", "stop")
    cut = client.chat.completions.create(model="echo", messages=HELLO, max_completion_tokens=6)
    assert (cut.choices[0].message.content, cut.choices[0].finish_reason) == ("[base]", "length")
    assert cut.usage is not None and cut.usage.completion_tokens == 6


def test_two_choices_plain_and_streamed(client: OpenAI):
    answer = client.chat.completions.create(model="echo", messages=HELLO, n=2)
    assert [choice.index for choice in answer.choices] == [0, 1]
    texts = {0: "", 1: ""}
    for chunk in client.chat.completions.create(model="echo", messages=HELLO, n=2, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == {0: "[base] You said: hello", 1: "[base] You said: hello"}


def test_a_follow_up_changes_the_version_that_answers(client: OpenAI, socket: Socket):
    first = client.chat.completions.create(model="echo", messages=HELLO, user="learner")
    messages = [*HELLO, first.choices[0].message.model_dump(), {"role": "user", "content": "shorter, please"}]
    raw = client.chat.completions.with_raw_response.create(model="echo", messages=messages, user="learner")
    assert raw.headers["x-learning"] == "queued" and raw.headers["x-adapter-version"] == "base"
    assert socket.call(socket.service.personalizer.settled("learner", timeout_s=20))
    after = client.chat.completions.with_raw_response.create(model="echo", messages=HELLO, user="learner")
    assert after.headers["x-adapter-version"] == "1"
    assert after.parse().choices[0].message.content == "[v1] You said: hello"
    assert after.parse().system_fingerprint == "echo@v1"
    based = client.chat.completions.create(model="echo@base", messages=HELLO, user="learner")
    assert based.choices[0].message.content == "[base] You said: hello"
    pinned = client.chat.completions.create(model="echo@v1", messages=HELLO, user="learner")
    assert pinned.choices[0].message.content == "[v1] You said: hello"
    outcome = httpx2.get(
        f"{socket.url}/v1/outcomes/{raw.headers['x-request-id']}",
        headers={"Authorization": f"Bearer {socket.service.app_key}"},
    )
    assert outcome.json()["outcome"] == "applied"


def test_streams_carry_the_headers_before_the_text(client: OpenAI):
    with client.chat.completions.with_streaming_response.create(
        model="echo", messages=HELLO, user="headers", stream=True
    ) as raw:
        assert raw.headers["x-learning"] == "skipped_first_message"
        assert raw.headers["x-adapter-version"] == "base"
        assert len(raw.headers["x-request-id"]) == 32
        assert raw.headers["content-type"].startswith("text/event-stream")


def test_extra_body_reaches_the_extension(client: OpenAI):
    answer = client.chat.completions.create(
        model="echo", messages=HELLO, user="temp", extra_body={"personalization": {"temporary": True}}
    )
    assert answer.model_extra is not None
    assert answer.model_extra["personalization"]["outcome"] == "skipped_temporary"
    assert answer.model_extra["personalization"]["turn_id"] is None


def test_models(client: OpenAI):
    assert [model.id for model in client.models.list()] == ["echo"]
    assert client.models.retrieve("echo").id == "echo"
    assert client.models.retrieve("echo@base").id == "echo@base"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("echo@v1")


def test_errors_are_the_clients_own_types(client: OpenAI, socket: Socket):
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(model="echo", messages=HELLO, temperature=3)
    assert (bad.value.code, bad.value.param, bad.value.type) == (
        "invalid_parameter", "temperature", "invalid_request_error",
    )  # fmt: skip
    with pytest.raises(openai.BadRequestError) as tools:
        client.chat.completions.create(
            model="echo", messages=HELLO, tools=[{"type": "function", "function": {"name": "f"}}]
        )
    assert (tools.value.code, tools.value.param) == ("unsupported_parameter", "tools")
    with pytest.raises(openai.NotFoundError) as model:
        client.chat.completions.create(model="gpt-4o", messages=HELLO)
    assert model.value.code == "model_not_found"
    with pytest.raises(openai.AuthenticationError) as key:
        OpenAI(base_url=f"{socket.url}/v1", api_key="sk-wrong").chat.completions.create(model="echo", messages=HELLO)
    assert key.value.code == "invalid_api_key"


def test_the_asynchronous_client_in_parallel(socket: Socket):
    async def talk() -> list[str | None]:
        async with AsyncOpenAI(base_url=f"{socket.url}/v1", api_key=socket.service.app_key) as client:
            answers = await asyncio.gather(
                *(
                    client.chat.completions.create(
                        model="echo", messages=[{"role": "user", "content": f"number {i}"}], user=f"parallel-{i}"
                    )
                    for i in range(16)
                )
            )
            stream = await client.chat.completions.create(model="echo", messages=HELLO, stream=True)
            streamed = "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])
        return [answer.choices[0].message.content for answer in answers] + [streamed]

    texts = asyncio.run(talk())
    assert texts == [f"[base] You said: number {i}" for i in range(16)] + ["[base] You said: hello"]


def wait_until(condition, timeout_s: float = 10.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def running(socket: Socket) -> int:
    return socket.service.personalizer._opened.inference.num_running


@pytest.fixture
def slow(socket: Socket):
    """The same service, a pause before every byte."""
    backend = socket.service.personalizer._opened.inference
    backend._delay_s = 0.05
    yield socket
    backend._delay_s = 0.0


def test_a_client_that_times_out_gets_its_own_error_and_leaves_nothing_running(slow: Socket):
    client = OpenAI(base_url=f"{slow.url}/v1", api_key=slow.service.app_key, max_retries=0, timeout=0.3)
    with pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(model="echo", messages=HELLO, user="impatient")
    assert wait_until(lambda: running(slow) == 0, 2.0)


@pytest.mark.slow  # twelve real clients hang up on a slow engine
def test_streams_that_are_hung_up_leave_nothing_behind(slow: Socket):
    def hang_up(number: int) -> None:
        client = OpenAI(base_url=f"{slow.url}/v1", api_key=slow.service.app_key, max_retries=0)
        stream = client.chat.completions.create(model="echo", messages=HELLO, user=f"gone-{number}", stream=True)
        for _, _chunk in zip(range(2 + number % 3), stream, strict=False):
            pass
        stream.close()
        client.close()

    threads = [threading.Thread(target=hang_up, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    personalizer = slow.service.personalizer
    assert wait_until(lambda: running(slow) == 0 and personalizer._chats.idle, 5.0)
    assert not personalizer._opened.inference.in_use


def test_keep_alive_comments_do_not_disturb_the_client(tmp_path):
    assert KEEP_ALIVE_S < 60  # proxies give up on a silent stream after a minute
    with listening(tmp_path, keep_alive_s=0.02) as socket:
        socket.service.personalizer._opened.inference._delay_s = 0.05
        client = OpenAI(base_url=f"{socket.url}/v1", api_key=socket.service.app_key, max_retries=0)
        stream = client.chat.completions.create(model="echo", messages=HELLO, stream=True, max_tokens=6)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "[base]"
        with httpx2.stream(
            "POST", f"{socket.url}/v1/chat/completions", headers={"Authorization": f"Bearer {socket.service.app_key}"},
            json={"model": "echo", "messages": HELLO, "stream": True, "max_tokens": 3},
        ) as raw:  # fmt: skip
            assert ": keep-alive" in raw.read().decode()
