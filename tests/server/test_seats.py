"""One user cannot fill the queue: how many replies of one person may be under way."""

import asyncio

import httpx2
import pytest

from personalize.config import ServiceSettings
from personalize.errors import InvalidParameter, TooManyRequests
from personalize.types import ChatRequest, Message, UserId
from server.app import KEEP_ALIVE_S
from server.seats import Seats
from tests.server.serving import Service

HELLO = (Message("user", "hello"),)
CHAT = {"model": "echo", "messages": [{"role": "user", "content": "hello " * 10}]}
TWO = {"service": {"max_requests_per_user": 2}}


def asks(user: str | None, n: int = 1) -> ChatRequest:
    return ChatRequest(HELLO, user, n=n)


def test_seats_are_counted_by_person_and_given_back():
    seats = Seats(2)
    with seats.taken(asks("alice")), seats.taken(asks("alice")), seats.taken(asks("bob")):
        with pytest.raises(TooManyRequests, match="2 replies for this user are under way; allowed: 2"):
            seats.taken(asks("alice")).__enter__()
        with seats.taken(asks(UserId("a" * 32))), seats.taken(asks("b" * 32)):
            pass
    assert not seats._taken


def test_choices_take_a_seat_each_but_nobody_is_kept_out_for_good():
    seats = Seats(2)
    with seats.taken(asks("alice", n=4)), pytest.raises(TooManyRequests, match="4 replies"):
        seats.taken(asks("alice")).__enter__()
    assert not seats._taken


def test_requests_for_nobody_are_not_counted():
    seats = Seats(1)
    with seats.taken(asks(None)), seats.taken(asks(None)):
        assert not seats._taken


def test_a_fault_gives_the_seat_back():
    seats = Seats(1)
    with pytest.raises(ValueError), seats.taken(asks("alice")):
        raise ValueError
    assert not seats._taken


@pytest.mark.parametrize("limit", [0, -1, True, "many"])
def test_a_limit_is_a_number(limit):
    with pytest.raises(InvalidParameter, match="max_requests_per_user"):
        ServiceSettings(max_requests_per_user=limit)


@pytest.mark.parametrize("stream", [False, True])
def test_who_asks_too_much_is_told_when_to_come_back_and_others_are_served(with_service, stream):
    async def work(service: Service) -> None:
        service.personalizer._opened.inference._delay_s = 0.005
        body = CHAT | {"stream": stream}
        async with service.client(service.app_key) as http:

            async def ask(user: str):
                return await http.post("/v1/chat/completions", json=body | {"user": user})

            answers = await asyncio.gather(*(ask("alice") for _ in range(6)), ask("bob"), ask("bob"))
            statuses = [answer.status_code for answer in answers]
            assert sorted(statuses[:6]) == [200, 200, 429, 429, 429, 429] and statuses[6:] == [200, 200]
            refused = next(answer for answer in answers if answer.status_code == 429)
            assert int(refused.headers["retry-after"]) >= 1
            assert refused.json()["error"] == {
                "message": "2 replies for this user are under way; allowed: 2",
                "type": "rate_limit_error",
                "param": None,
                "code": "rate_limit_exceeded",
            }
            assert [answer.status_code for answer in await asyncio.gather(ask("alice"), ask("alice"))] == [200, 200]
        assert (await service.personalizer.user("alice")).num_turns == 4, "a refused request leaves nothing"

    with_service(work, **TWO)


@pytest.mark.parametrize("stream", [False, True])
def test_whoever_hangs_up_gives_the_seats_back(socket_of_two, stream):
    headers = {"Authorization": f"Bearer {socket_of_two.service.app_key}"}
    socket_of_two.service.personalizer._opened.inference._delay_s = 0.02
    body = CHAT | {"user": f"carol {stream}", "stream": stream}

    async def main() -> None:
        async with httpx2.AsyncClient(base_url=socket_of_two.url, headers=headers, timeout=30) as http:
            for _ in range(5):
                asked = [asyncio.create_task(http.post("/v1/chat/completions", json=body)) for _ in range(2)]
                await asyncio.sleep(0.2)
                for one in asked:
                    one.cancel()
                await asyncio.gather(*asked, return_exceptions=True)
                await asyncio.sleep(0.3)
            assert (await http.post("/v1/chat/completions", json=body)).status_code == 200

    asyncio.run(main())


def test_who_hangs_up_before_the_first_token_of_a_stream_gives_the_seat_back_at_once(socket_of_two):
    service = socket_of_two.service
    service.personalizer._opened.inference._rows = asyncio.Semaphore(0)  # nobody's turn ever comes
    headers, body = {"Authorization": f"Bearer {service.app_key}"}, CHAT | {"user": "dora", "stream": True}

    async def under_way(number: int) -> None:
        while len(service.personalizer._chats) != number:
            await asyncio.sleep(0.01)

    async def main() -> None:
        async with httpx2.AsyncClient(base_url=socket_of_two.url, headers=headers) as http:
            asked = [asyncio.create_task(http.post("/v1/chat/completions", json=body)) for _ in range(2)]
            await under_way(2)
            for one in asked:
                one.cancel()
            await asyncio.wait_for(under_way(0), KEEP_ALIVE_S / 2)

    asyncio.run(main())
    assert not service.app.state.shared.seats._taken


@pytest.fixture
def socket_of_two(tmp_path):
    from tests.server.serving import listening

    with listening(tmp_path, **TWO) as socket:
        yield socket


def test_the_official_client_meets_its_own_rate_limit_error(with_service, tmp_path):
    import openai

    from tests.server.serving import listening

    with listening(tmp_path / "socket", service={"max_requests_per_user": 1}) as socket:
        socket.service.personalizer._opened.inference._delay_s = 0.01
        client = openai.OpenAI(base_url=f"{socket.url}/v1", api_key=socket.service.app_key, max_retries=0)
        messages = [{"role": "user", "content": "hello " * 20}]
        with (
            client.chat.completions.create(model="echo", messages=messages, user="a", stream=True) as first,
            pytest.raises(openai.RateLimitError) as caught,
        ):
            next(iter(first))
            client.chat.completions.create(model="echo", messages=messages, user="a")
        assert caught.value.code == "rate_limit_exceeded" and int(caught.value.response.headers["retry-after"]) >= 1
