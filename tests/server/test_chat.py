"""The chat route in process: what the ``openai`` client does not show."""

import asyncio

import pytest

from personalize.errors import Overloaded
from personalize.types import Outcome
from tests.server.serving import Service

HELLO = [{"role": "user", "content": "hello"}]
URL = "/v1/chat/completions"


def body(**fields):
    return {"model": "echo", "messages": HELLO, "max_tokens": 3} | fields


async def post(service: Service, secret: str | None = None, headers=None, **fields):
    async with service.client(secret or service.app_key) as http:
        return await http.post(URL, json=body(**fields), headers=headers or {})


def test_who_is_named_and_how(with_service):
    async def work(service: Service) -> None:
        await post(service, headers={"X-User-Id": "by header"})
        await post(service, safety_identifier="by identifier")
        await post(service, user="by user")
        await post(service, user="all three", safety_identifier="all three", headers={"X-User-Id": "all three"})
        await post(service, headers={"X-User-Id": "Zoë".encode()})
        for name in ("by header", "by identifier", "by user", "all three", "Zoë"):
            assert (await service.personalizer.user(name)).num_turns == 1

    with_service(work)


@pytest.mark.parametrize(
    ("fields", "headers"),
    [
        ({"user": "a", "safety_identifier": "b"}, {}),
        ({"user": "a"}, {"X-User-Id": "b"}),
        ({"safety_identifier": "a"}, {"X-User-Id": "b"}),
    ],
)
def test_two_different_people_are_a_conflict(with_service, fields, headers):
    async def work(service: Service) -> None:
        answer = await post(service, headers=headers, **fields)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "user_conflict")
        assert await service.personalizer.users() == ()

    with_service(work)


@pytest.mark.parametrize("fields", [{}, {"user": None}, {"user": ""}, {"user": "", "safety_identifier": ""}])
def test_nobody_is_the_base_model(with_service, fields):
    async def work(service: Service) -> None:
        answer = await post(service, **fields)
        assert answer.headers["x-learning"] == "skipped_anonymous"
        assert answer.headers["x-adapter-version"] == "base"
        assert answer.json()["personalization"]["turn_id"] is None

    with_service(work)


@pytest.mark.parametrize(
    "fields",
    [{"user": 7}, {"user": ["a"]}, {"safety_identifier": {}}, {"user": " "}, {"user": "x" * 257}],
    ids=range(5),
)
def test_bad_names(with_service, fields):
    async def work(service: Service) -> None:
        answer = await post(service, **fields)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_parameter")

    with_service(work)


def test_the_header_must_be_utf8(with_service):
    async def work(service: Service) -> None:
        assert (await post(service, headers={"X-User-Id": b"\xff\xfe"})).status_code == 400

    with_service(work)


def test_learning_switched_off_by_the_request(with_service):
    async def work(service: Service) -> None:
        answer = await post(service, user="a", personalization={"learn": False})
        assert answer.headers["x-learning"] == "skipped_learning_off"
        temporary = await post(service, user="a", personalization={"temporary": True})
        assert temporary.headers["x-learning"] == "skipped_temporary"
        assert (await service.personalizer.user("a")).num_turns == 1

    with_service(work)


def test_a_version_that_is_not_there(with_service):
    async def work(service: Service) -> None:
        answer = await post(service, user="a", model="echo@v9")
        assert answer.status_code == 404
        streamed = await post(service, user="a", model="echo@v9", stream=True)
        assert streamed.status_code == 404
        assert streamed.json()["error"] == answer.json()["error"]

    with_service(work)


def test_a_prompt_beyond_the_context_is_a_plain_error_in_a_stream_too(with_service):
    async def work(service: Service) -> None:
        long = [{"role": "user", "content": "x" * 70_000}]
        for stream in (False, True):
            answer = await post(service, messages=long, stream=stream)
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "context_length_exceeded")

    with_service(work)


def test_an_engine_that_is_full_says_when_to_come_back(with_service):
    async def work(service: Service) -> None:
        async def full(request):
            raise Overloaded("64 requests wait", retry_after_s=7)
            yield

        service.personalizer._opened.inference.generate = full
        for stream in (False, True):
            answer = await post(service, stream=stream)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "7")

    with_service(work)


def test_every_answer_names_its_request_and_the_outcome_is_found_under_it(with_service):
    async def work(service: Service) -> None:
        answer = await post(service, user="a")
        request_id = answer.headers["x-request-id"]
        assert answer.json()["id"] == f"chatcmpl-{request_id}"
        assert await service.personalizer.outcome(request_id) is Outcome.SKIPPED_FIRST_MESSAGE

    with_service(work)


@pytest.mark.slow  # forty real turns, each recorded durably
def test_many_streams_at_once_some_hung_up(with_service):
    async def work(service: Service) -> None:
        service.personalizer._opened.inference._delay_s = 0.001

        async def one(number: int) -> str:
            return (await post(service, user=f"u{number}", stream=True, max_tokens=40)).text

        async def gone(number: int) -> None:
            task = asyncio.create_task(one(number))
            await asyncio.sleep(0.01 * (number % 5))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        texts, _ = await asyncio.gather(
            asyncio.gather(*(one(n) for n in range(20))), asyncio.gather(*(gone(n) for n in range(20, 40)))
        )
        assert all(text.endswith("data: [DONE]\n\n") for text in texts)
        while not service.personalizer._chats.idle:
            await asyncio.sleep(0.01)
        assert service.personalizer._opened.inference.num_running == 0

    with_service(work)


def test_openai_clients_may_send_fields_nobody_knows(with_service):
    async def work(service: Service) -> None:
        answer = await post(service, brand_new={"a": 1}, metadata={"k": "v"}, store=True, tools=[], logprobs=False)
        assert answer.status_code == 200

    with_service(work)
