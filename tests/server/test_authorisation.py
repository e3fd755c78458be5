"""Every route of the application against every kind of caller."""

from dataclasses import dataclass
from typing import Any

import pytest
from fastapi.routing import iter_route_contexts

from server.app import create_app
from server.identity import PUBLIC
from tests.server.serving import Service, adapter_zip, teach

CALLERS = ("admin", "app", "own", "other", "none", "revoked")
CHAT = {"model": "echo", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}


@dataclass(frozen=True)
class Row:
    """What each caller gets, in the order of CALLERS."""

    method: str
    route: str
    statuses: tuple[int, ...]
    body: Any = None


ANY = (200, 200, 200, 200, 401, 401)
ADMIN = (200, 403, 403, 403, 401, 401)
ONE = (200, 200, 200, 404, 401, 401)
OPEN = (200,) * 6
ADAPTER = adapter_zip()

MATRIX = (
    Row("POST", "/v1/chat/completions", ANY, CHAT),
    Row("GET", "/v1/models", ANY),
    Row("GET", "/v1/models/{model:path}", ANY),
    Row("GET", "/v1/users", ADMIN),
    Row("GET", "/v1/users/{user}", ONE),
    Row("PUT", "/v1/users/{user}", ONE, {"learning": "active", "consent": True}),
    Row("GET", "/v1/users/{user}/versions", ONE),
    Row("POST", "/v1/users/{user}/versions", ADMIN, ADAPTER),
    Row("PUT", "/v1/users/{user}/versions/{number}", ONE, {"pinned": True}),
    Row("GET", "/v1/users/{user}/versions/{number}/export", ONE),
    Row("GET", "/v1/users/{user}/export", ONE),
    Row("GET", "/v1/users/{user}/updates", ONE),
    Row("GET", "/v1/users/{user}/updates/{update_id}/explanation", ONE),
    Row("POST", "/v1/users/{user}/rollback", ONE, {"version": 2}),
    Row("POST", "/v1/users/{user}/undo", ONE),
    Row("POST", "/v1/users/{user}/updates/{update_id}/undo", ONE),
    Row("POST", "/v1/users/{user}/reset", ONE),
    Row("DELETE", "/v1/users/{user}", ONE),
    Row("GET", "/v1/updates/{update_id}", ONE),
    Row("GET", "/v1/outcomes/{request_id}", ONE),
    Row("GET", "/v1/keys", ADMIN),
    Row("POST", "/v1/keys", ADMIN, {"scope": "app"}),
    Row("DELETE", "/v1/keys/{key_id}", ADMIN),
    Row("GET", "/metrics", ADMIN),
    Row("GET", "/version", ANY),
    Row("GET", "/health", OPEN),
    Row("GET", "/ready", OPEN),
)


class Target:
    """A user with two versions, and a key for every caller."""

    def __init__(self, service: Service):
        self.access = service.access
        self.personalizer = service.personalizer
        self.secrets: dict[str, str | None] = {"admin": service.admin, "app": service.app_key, "none": None}
        self.names: dict[str, str] = {"model:path": "echo", "number": "1"}

    async def prepare(self, service: Service) -> None:
        request_ids = await teach(service, "the/target", follow_ups=2)
        update = (await self.personalizer.updates("the/target"))[0]
        self.names |= {"update_id": update.update_id, "request_id": request_ids[0]}
        revoked, self.secrets["revoked"] = await self.access.create_key("admin")
        await self.access.revoke_key(revoked.key_id)
        _, self.secrets["other"] = await self.access.create_key("user", "somebody else")

    async def ready(self, row: Row, number: int) -> dict[str, str]:
        """Return what the path's placeholders stand for; what a call destroys is made anew for each."""
        user = "the/target"
        if row.method == "DELETE" and "{user}" in row.route:
            user = f"doomed/{number}"
        _, self.secrets["own"] = await self.access.create_key("user", user)
        if row.route.endswith("/undo"):
            await self.personalizer.rollback(user, 2)
        if "{key_id}" in row.route:
            self.names["key_id"] = (await self.access.create_key("app"))[0].key_id
        return self.names | {"user": user.replace("/", "%2F")}


def filled(route: str, names: dict[str, str]) -> str:
    for name, value in names.items():
        route = route.replace("{" + name + "}", value)
    return route


def routes_of(app) -> set[tuple[str, str]]:
    return {(method, route.path) for route in iter_route_contexts(app.routes) for method in route.methods}


def test_the_matrix_names_every_route(with_service):
    async def work(service: Service):
        return routes_of(create_app(service.personalizer, service.access))

    assert with_service(work) == {(row.method, row.route) for row in MATRIX}


def test_only_the_public_routes_are_open():
    assert {row.route for row in MATRIX if row.statuses == OPEN} == set(PUBLIC)


@pytest.mark.slow  # 22 routes x 6 callers, with real keys and a real store
def test_every_route_answers_every_caller_as_the_matrix_says(with_service):
    async def work(service: Service) -> list[str]:
        target, wrong = Target(service), []
        await target.prepare(service)
        for row in MATRIX:
            for number, (caller, expected) in enumerate(zip(CALLERS, row.statuses, strict=True)):
                names = await target.ready(row, number)
                async with service.client(target.secrets[caller]) as http:
                    body = {"content" if isinstance(row.body, bytes) else "json": row.body}
                    answer = await http.request(row.method, filled(row.route, names), **body)
                if answer.status_code != expected:
                    wrong.append(f"{row.method} {row.route} as {caller}: {answer.status_code}, not {expected}")
                if answer.status_code >= 400:
                    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
        return wrong

    assert with_service(work) == []


def test_foreign_and_missing_are_one_answer(with_service):
    async def work(service: Service) -> None:
        await teach(service, "alice")
        update = (await service.personalizer.updates("alice"))[0]
        _, bob = await service.access.create_key("user", "bob")
        pairs = [
            ("GET", "/v1/users/{}", ("alice", "nobody")),
            ("GET", "/v1/users/{}/versions", ("alice", "nobody")),
            ("GET", "/v1/users/{}/export", ("alice", "nobody")),
            ("GET", "/v1/users/{}/versions/1/export", ("alice", "nobody")),
            ("PUT", "/v1/users/{}/versions/1", ("alice", "nobody")),
            ("GET", "/v1/users/{}/updates/latest/explanation", ("alice", "nobody")),
            ("POST", "/v1/users/{}/reset", ("alice", "nobody")),
            ("DELETE", "/v1/users/{}", ("alice", "nobody")),
            ("GET", "/v1/updates/{}", (update.update_id, "0" * 32)),
            ("GET", "/v1/outcomes/{}", (update.request_id, "0" * 32)),
        ]
        async with service.client(bob) as http:
            for method, path, (foreign, missing) in pairs:
                first, second = [await http.request(method, path.format(name)) for name in (foreign, missing)]
                assert first.status_code == second.status_code == 404
                assert first.content == second.content
                assert {k: v for k, v in first.headers.items() if k != "x-request-id"} == {
                    k: v for k, v in second.headers.items() if k != "x-request-id"
                }

    with_service(work)


def test_a_user_key_cannot_speak_for_somebody_else_nor_learn_who_exists(with_service):
    async def work(service: Service) -> None:
        await teach(service, "alice")
        _, bob = await service.access.create_key("user", "bob")
        async with service.client(bob) as http:
            answers = [
                await http.post("/v1/chat/completions", json=CHAT | {"user": name}) for name in ("alice", "nobody")
            ]
            assert [answer.status_code for answer in answers] == [400, 400]
            assert answers[0].content == answers[1].content
            assert answers[0].json()["error"]["code"] == "user_conflict"
            own = await http.post("/v1/chat/completions", json=CHAT | {"user": "bob"})
            unnamed = await http.post("/v1/chat/completions", json=CHAT)
        assert own.status_code == unnamed.status_code == 200
        assert (await service.personalizer.user("bob")).num_turns == 2

    with_service(work)


def test_a_key_that_is_revoked_between_two_requests_ends_at_once(with_service):
    async def work(service: Service) -> None:
        key, secret = await service.access.create_key("app")
        async with service.client(secret) as http:
            assert (await http.get("/v1/models")).status_code == 200
            await service.access.revoke_key(key.key_id)
            assert (await http.get("/v1/models")).status_code == 401

    with_service(work)


@pytest.mark.parametrize("header", ["", "Basic abc", "Bearer", "Bearer ", "Bearer pk-x", "pk-x", "Bearer pk-\u00e9"])
def test_odd_authorisation_headers_are_all_the_same_refusal(with_service, header):
    async def work(service: Service) -> None:
        async with service.client() as http:
            answer = await http.get("/v1/models", headers={"Authorization": header.encode("latin-1")})
        assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
        assert answer.json()["error"]["code"] == "invalid_api_key"

    with_service(work)
