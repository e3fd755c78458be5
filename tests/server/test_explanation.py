"""``GET /v1/users/{user}/updates/{id}/explanation``."""

import json

from tests.server.serving import Service, teach

PATH = "/v1/users/{}/updates/{}/explanation"


def test_it_is_the_explanation_of_the_sdk_as_json(with_service):
    async def work(service: Service) -> None:
        await teach(service, "a/lice", follow_ups=2)
        (newest, first) = await service.personalizer.updates("a/lice")
        expected = json.loads(json.dumps((await service.personalizer.explain("a/lice", first.update_id)).to_json()))
        _, own = await service.access.create_key("user", "a/lice")
        for secret in (service.admin, service.app_key, own):
            async with service.client(secret) as http:
                for name in (first.update_id, first.turn_id):
                    answer = await http.get(PATH.format("a%2Flice", name))
                    assert (answer.status_code, answer.json()) == (200, expected)
                latest = (await http.get(PATH.format("a%2Flice", "latest"))).json()
                assert latest["update_id"] == newest.update_id and latest["parent"] == 1

    with_service(work)


def test_a_probe_may_be_asked_for(with_service):
    async def work(service: Service) -> None:
        await teach(service, "alice")
        async with service.client(service.admin) as http:
            path = PATH.format("alice", "latest")
            probe = (await http.get(path, params={"probe": "naïve? & more"})).json()["probe"]
            assert (probe["prompt"], probe["after"]) == ("naïve? & more", "[v1] You said: naïve? & more")
            blank = await http.get(path, params={"probe": " "})
            assert (blank.status_code, blank.json()["error"]["param"]) == (400, "probe")

    with_service(work)


def test_another_users_update_is_not_found_under_ones_own_name(with_service):
    async def work(service: Service) -> None:
        for user in ("alice", "bob"):
            await teach(service, user)
        (foreign,) = await service.personalizer.updates("alice")
        _, bob = await service.access.create_key("user", "bob")
        async with service.client(bob) as http:
            answers = [await http.get(PATH.format("bob", name)) for name in (foreign.update_id, "0" * 32)]
            assert [answer.status_code for answer in answers] == [404, 404]
            assert answers[0].content == answers[1].content
            assert (await http.get(PATH.format("alice", foreign.update_id))).status_code == 404

    with_service(work)


def test_what_cannot_be_explained_has_its_own_status(with_service):
    async def work(service: Service) -> None:
        await teach(service, "alice")
        (update,) = await service.personalizer.updates("alice")
        user_id = (await service.personalizer.user("alice")).user_id
        async with service.client(service.admin) as http:
            odd = await http.get(PATH.format("alice", "newest"))
            assert (odd.status_code, odd.json()["error"]["param"]) == (400, "update")
            service.personalizer.store._drop_conversation(user_id, update.turn_id)
            gone = await http.get(PATH.format("alice", update.update_id))
            assert (gone.status_code, gone.json()["error"]["code"]) == (410, "gone")

    with_service(work)
