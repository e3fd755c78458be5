"""The population adapter over HTTP: what serves is named, its owner is nobody, ``forget`` says what it concerns."""

import json
from pathlib import Path

import httpx2
import pytest

from personalize.remote import RemotePersonalizer
from personalize.types import ChatRequest, Message
from tests.server.serving import Service, adapter_zip

HELLO = {"model": "echo", "messages": [{"role": "user", "content": "hello"}], "user": "new"}


@pytest.fixture()
def log(tmp_path) -> Path:
    said = [("user", "one"), ("assistant", "reply one"), ("user", "shorter")]
    messages = [{"role": role, "content": text} for role, text in said]
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps({"messages": messages, "user": "alice"}) + "\n")
    return path


def test_an_answer_says_that_it_is_the_population_adapters(with_service, log):
    async def work(service: Service) -> None:
        await service.personalizer.build_population([log])
        async with service.client(service.app_key) as http:
            answer = await http.post("/v1/chat/completions", json=HELLO)
            body = answer.json()
            assert answer.headers["x-adapter-version"] == "population-1"
            assert body["system_fingerprint"] == "echo@population-1"
            assert body["personalization"]["population_version"] == 1
            assert body["personalization"]["adapter_version"] is None
            named = await http.post("/v1/chat/completions", json={**HELLO, "model": "echo@v1"})
            assert named.status_code == 404, "its number is not one of the user's own versions"

    with_service(work, service={"population": True})


def test_the_remote_client_reads_it(with_service, log):
    async def work(service: Service) -> None:
        await service.personalizer.build_population([log])
        transport = httpx2.ASGITransport(service.app)
        async with RemotePersonalizer("http://test", service.admin, transport=transport) as remote:
            reply = await remote.chat("new", "hello")
            assert (reply.adapter_version, reply.population_version) == (None, 1)
            request = ChatRequest((Message("user", "hello"),), "alice")
            chunks = [chunk async for chunk in remote.stream(request)]
            start = chunks[0].start
            assert start is not None and (start.adapter_version, start.population_version) == (None, 1)
            (use,) = (await remote.forget("alice")).population
            expected = (await service.personalizer.population())[0].sources[0].digest
            assert (use.number, use.in_sources, use.in_line) == (1, (expected,), False)
            assert (await remote.forget("new")).population == ()

    with_service(work, service={"population": True})


def test_its_owner_is_no_user_over_http(with_service, log):
    async def work(service: Service) -> None:
        await service.personalizer.build_population([log])
        owner = service.personalizer.store.ensure_population_owner().user_id
        async with service.client(service.admin) as http:
            assert (await http.get("/v1/users")).json()["data"] == []
            at = f"/v1/users/{owner}"
            answers = [
                await http.get(f"{at}?by=id"),
                await http.put(f"{at}?by=id", json={"learning": "paused"}),
                await http.delete(f"{at}?by=id"),
                await http.get(f"{at}/versions?by=id"),
                await http.get(f"{at}/versions/1/export?by=id"),
                await http.post(f"{at}/versions?by=id", content=adapter_zip()),
                await http.put(f"{at}/versions/1?by=id", json={"pinned": True}),
                await http.get(f"{at}/updates?by=id"),
                await http.post(f"{at}/rollback?by=id", json={"version": 1}),
                await http.post(f"{at}/reset?by=id"),
                await http.post(f"{at}/undo?by=id"),
                await http.get(f"{at}/export?by=id"),
            ]
            assert [answer.status_code for answer in answers] == [404] * len(answers)
            assert {answer.json()["error"]["message"] for answer in answers} == {"no such user"}
            key = (await http.post("/v1/keys", json={"scope": "user", "user": owner})).json()
            assert key["user_id"] != owner, "his id as a name is just a name"
            answer = await http.post("/v1/chat/completions", json={**HELLO, "user": owner})
            assert answer.json()["personalization"]["population_version"] == 1
        assert len(await service.personalizer.population()) == 1

    with_service(work, service={"population": True})
