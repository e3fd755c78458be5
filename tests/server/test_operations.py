import asyncio

from personalize.errors import Overloaded
from server.pulse import Pulse
from tests.server.serving import Service, opened, teach


def test_health_exercises_the_decode_loop(with_service):
    async def work(service: Service) -> None:
        async with service.client() as http:
            assert (await http.get("/health")).json() == {"status": "ok"}

    with_service(work)


def test_health_turns_red_over_an_engine_that_hangs(with_service):
    async def work(service: Service) -> None:
        async def hangs(request):
            await asyncio.sleep(60)
            yield

        service.personalizer._opened.inference.generate = hangs
        service.app.state.shared.pulse._timeout_s = 0.1
        async with service.client() as http:
            answer = await http.get("/health")
            assert (answer.status_code, answer.json()["status"]) == (503, "the engine does not answer")

    with_service(work)


def test_many_askers_share_one_probe_and_a_full_engine_is_alive():
    class Counting:
        asked = 0

        async def complete(self, request):
            self.asked += 1
            await asyncio.sleep(0.01)
            raise Overloaded("full")

    async def work() -> None:
        service = Counting()
        pulse = Pulse(service)  # type: ignore[arg-type]
        assert all(await asyncio.gather(*(pulse.beats() for _ in range(50))))
        assert service.asked == 1

    asyncio.run(work())


def test_a_probe_that_waits_in_line_is_excused_by_the_replies_of_others():
    class Busy:
        async def complete(self, request):
            await asyncio.sleep(60)

    async def work(busy: bool) -> bool:
        pulse = Pulse(Busy(), timeout_s=0.1)  # type: ignore[arg-type]
        if busy:
            asyncio.get_running_loop().call_later(0.02, pulse.saw)
        return await pulse.beats()

    assert asyncio.run(work(True)) is True
    assert asyncio.run(work(False)) is False


def test_probes_leave_no_user_and_no_turn(with_service):
    async def work(service: Service) -> None:
        async with service.client() as http:
            await http.get("/health")
        assert await service.personalizer.users() == ()

    with_service(work)


def test_ready_says_who_trains_and_why_not(with_service):
    async def work(service: Service) -> None:
        async with service.client() as http:
            answer = (await http.get("/ready")).json()
        assert answer["status"] == "ok" and answer["learning"] == "on"
        assert "trains" in answer["lease"] and answer["journal_mode"] in ("wal", "delete", "truncate", "persist")
        assert answer["learning_paused_reason"] is None

    with_service(work)


def test_metrics_count_outcomes_and_never_name_a_user(with_service):
    async def work(service: Service) -> str:
        await teach(service, "secret-alice")
        async with service.client(service.admin) as http:
            await http.get("/v1/users/secret-alice")
            return (await http.get("/metrics")).text

    text = with_service(work)
    assert 'personalize_chats_total{outcome="queued"} 1.0' in text
    assert 'personalize_updates{kind="applied"} 1.0' in text
    assert 'route="/v1/users/{user}",status="200"' in text
    assert "secret-alice" not in text


def test_version(with_service):
    async def work(service: Service) -> None:
        async with service.client(service.app_key) as http:
            answer = (await http.get("/version")).json()
        assert answer["model"] == "echo" and answer["version"]

    with_service(work)


def test_a_second_server_on_one_store_serves_and_queues_and_says_so(tmp_path):
    async def lease(service: Service) -> str:
        async with service.client() as http:
            return (await http.get("/ready")).json()["lease"]

    async def work() -> None:
        async with opened(tmp_path) as first:
            await first.personalizer.chat("alice", "hello")
            assert await lease(first) == "serves and trains"
            async with opened(tmp_path) as second:
                await teach(second, "bob")
                assert "another process trains" in await lease(second)
                assert [update.outcome for update in await second.personalizer.updates("bob")] == ["applied"]
                assert (await second.personalizer.chat("bob", "hi")).adapter_version == 1

    asyncio.run(work())
