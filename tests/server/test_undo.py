"""``POST /v1/users/{user}/updates/{id}/undo``."""

from tests.server.serving import Service, teach

PATH = "/v1/users/{}/updates/{}/undo"


def test_an_older_update_is_taken_back_by_its_own_user(with_service):
    async def work(service: Service) -> None:
        await teach(service, "a/lice", follow_ups=3)
        _, second, _ = await service.personalizer.updates("a/lice")
        _, own = await service.access.create_key("user", "a/lice")
        async with service.client(own) as http:
            path = PATH.format("a%2Flice", second.turn_id)
            planned = (await http.post(path, params={"dry_run": "true"})).json()
            assert (planned["status"], planned["num_turns"], planned["version"]) == ("planned", 1, None)
            answer = await http.post(path)
            assert answer.status_code == 200
            expected = {"status": "recomputed", "replaced": 3, "start": 1, "version": 4, "turn_id": second.turn_id}
            assert answer.json().items() >= expected.items()
            versions = (await http.get("/v1/users/a%2Flice/versions")).json()["data"]
            assert {v["number"]: v["origin"] for v in versions if v["is_head"]} == {4: "recomputation"}
            again = await http.post(path)
            assert (again.status_code, again.json()["error"]["code"]) == (409, "conflict")

    with_service(work)


def test_the_last_update_is_taken_back_exactly(with_service):
    async def work(service: Service) -> None:
        await teach(service, "alice", follow_ups=2)
        newest, _ = await service.personalizer.updates("alice")
        async with service.client(service.app_key) as http:
            report = (await http.post(PATH.format("alice", newest.update_id), params={"dry_run": "false"})).json()
            assert (report["status"], report["version"], report["num_turns"]) == ("exact", 1, 0)

    with_service(work)


def test_what_cannot_be_undone_is_refused(with_service):
    async def work(service: Service) -> None:
        await teach(service, "alice", follow_ups=2)
        _, first = await service.personalizer.updates("alice")
        _, bob = await service.access.create_key("user", "bob")
        async with service.client(bob) as http:
            foreign = await http.post(PATH.format("alice", first.turn_id))
            mine = await http.post(PATH.format("bob", first.turn_id))
            missing = await http.post(PATH.format("bob", "0" * 32))
            assert [answer.status_code for answer in (foreign, mine, missing)] == [404, 404, 404]
            assert mine.content == missing.content
        async with service.client(service.admin) as http:
            assert (await http.post(PATH.format("alice", "newest"))).status_code == 400
            odd = await http.post(PATH.format("alice", first.turn_id), params={"dry_run": "1"})
            assert (odd.status_code, odd.json()["error"]["param"]) == (400, "dry_run")
            assert (await http.get("/v1/users/alice")).json()["head"] == 2

    with_service(work)
