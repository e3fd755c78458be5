"""Management routes on a user that has really learned."""

from tests.server.serving import Service, teach


def test_versions_rollback_undo_and_reset(with_service):
    async def work(service: Service) -> None:
        await teach(service, "alice", follow_ups=2)
        async with service.client(service.app_key) as http:
            versions = (await http.get("/v1/users/alice/versions")).json()["data"]
            assert sorted(v["number"] for v in versions) == [1, 2]
            assert [v["number"] for v in versions if v["is_head"]] == [2]
            assert (await http.post("/v1/users/alice/undo")).json()["version"]["number"] == 1
            assert (await http.post("/v1/users/alice/undo")).json() == {"version": None}
            assert (await http.get("/v1/users/alice")).json()["head"] is None
            rolled = await http.post("/v1/users/alice/rollback", json={"version": 2})
            assert rolled.json()["number"] == 2 and rolled.json()["is_head"]
            assert (await http.post("/v1/users/alice/reset")).json() == {"head": None}
            assert (await http.get("/v1/users/alice")).json()["head"] is None
            assert len((await http.get("/v1/users/alice/versions")).json()["data"]) == 2
            missing = await http.post("/v1/users/alice/rollback", json={"version": 99})
            assert missing.status_code == 404 and "99" in missing.json()["error"]["message"]

    with_service(work)


def test_learning_and_consent(with_service):
    async def work(service: Service) -> None:
        await teach(service, "alice")
        async with service.client(service.app_key) as http:
            put = await http.put("/v1/users/alice", json={"learning": "paused", "consent": True})
            assert (put.json()["learning"], put.json()["consent"]) == ("paused", True)
            assert (await http.get("/v1/users/alice")).json() == put.json()
            resumed = await http.put("/v1/users/alice", json={"learning": "active"})
            assert (resumed.json()["learning"], resumed.json()["consent"]) == ("active", True)
            assert (await http.put("/v1/users/alice", json={})).json() == resumed.json()
            assert (await http.put("/v1/users/alice", json={"consent": False})).json()["consent"] is False

    with_service(work)


def test_updates_and_outcomes(with_service):
    async def work(service: Service) -> None:
        request_ids = await teach(service, "alice", follow_ups=2)
        async with service.client(service.app_key) as http:
            updates = (await http.get("/v1/users/alice/updates")).json()["data"]
            assert {update["request_id"] for update in updates} == set(request_ids)
            assert {update["outcome"] for update in updates} == {"applied"}
            one = (await http.get(f"/v1/updates/{updates[0]['update_id']}")).json()
            assert one == updates[0]
            outcome = (await http.get(f"/v1/outcomes/{request_ids[0]}")).json()
            assert outcome == {"request_id": request_ids[0], "outcome": "applied"}

    with_service(work)


def test_forgetting_takes_the_users_keys_along(with_service):
    async def work(service: Service) -> None:
        await teach(service, "alice")
        _, own = await service.access.create_key("user", "alice")
        async with service.client(own) as http:
            receipt = (await http.delete("/v1/users/alice")).json()
            assert receipt["num_versions"] == 1 and receipt["num_turns"] == 2 and receipt["num_bytes"] > 0
            assert (await http.get("/v1/users/alice")).status_code == 401
        async with service.client(service.app_key) as http:
            assert (await http.get("/v1/users/alice")).status_code == 404

    with_service(work)


def test_listing_pages_and_addressing_by_id(with_service):
    async def work(service: Service) -> None:
        for name in ("a", "b/c", "d e"):
            await service.access.create_key("user", name)
        async with service.client(service.admin) as http:
            first = (await http.get("/v1/users?limit=2")).json()
            assert len(first["data"]) == 2 and first["has_more"]
            rest = (await http.get(f"/v1/users?limit=2&after={first['data'][-1]['user_id']}")).json()
            assert len(rest["data"]) == 1 and not rest["has_more"]
            listed = {user["user_id"] for user in first["data"] + rest["data"]}
            named = [(await http.get(f"/v1/users/{name}")).json()["user_id"] for name in ("a", "b%2Fc", "d%20e")]
            assert listed == set(named)
            by_id = await http.get(f"/v1/users/{named[1]}?by=id")
            assert by_id.json()["user_id"] == named[1]
            assert (await http.get(f"/v1/users/{named[1]}")).status_code == 404

    with_service(work)


def test_a_user_key_sees_its_own_version_among_the_models(with_service):
    async def work(service: Service) -> None:
        await teach(service, "alice")
        _, own = await service.access.create_key("user", "alice")
        _, other = await service.access.create_key("user", "bob")
        async with service.client(own) as http:
            models = (await http.get("/v1/models")).json()["data"]
            assert [model["id"] for model in models] == ["echo", "echo@v1"]
            assert models[1]["parent"] == "echo"
            assert (await http.get("/v1/models/echo@v1")).json() == models[1]
        async with service.client(other) as http:
            assert [model["id"] for model in (await http.get("/v1/models")).json()["data"]] == ["echo"]
            assert (await http.get("/v1/models/echo@v1")).status_code == 404

    with_service(work)


def test_a_user_key_finds_every_own_version_by_name(with_service):
    async def work(service: Service) -> None:
        await teach(service, "alice", follow_ups=2)
        _, own = await service.access.create_key("user", "alice")
        async with service.client(own) as http:
            answers = [await http.get(f"/v1/models/echo@v{number}") for number in (1, 2, 3)]
        assert [answer.status_code for answer in answers] == [200, 200, 404]
        assert [answer.json()["id"] for answer in answers[:2]] == ["echo@v1", "echo@v2"]

    with_service(work)


def test_the_base_model_is_found_under_the_name_that_was_asked_for(with_service):
    async def work(service: Service) -> None:
        async with service.client(service.app_key) as http:
            for name in ("echo", "echo@base"):
                assert (await http.get(f"/v1/models/{name}")).json()["id"] == name

    with_service(work)


def test_keys_are_shown_once_and_never_listed_with_their_secret(with_service):
    async def work(service: Service) -> None:
        async with service.client(service.admin) as http:
            made = (await http.post("/v1/keys", json={"scope": "user", "user": "alice", "label": "phone"})).json()
            listed = (await http.get("/v1/keys")).text
            assert made["secret"] not in listed and made["key_id"] in listed
            async with service.client(made["secret"]) as alice:
                assert (await alice.get("/v1/users/alice")).json()["user_id"] == made["user_id"]
                await http.delete(f"/v1/keys/{made['key_id']}")
                assert (await alice.get("/v1/users/alice")).status_code == 401
            assert (await http.delete("/v1/keys/unknown")).status_code == 404

    with_service(work)
