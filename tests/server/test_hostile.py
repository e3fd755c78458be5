"""What no client should send: every answer is an OpenAI envelope, and the service goes on."""

import json

import httpx2
import pytest

from tests.server.serving import Service, Socket, listening

URL = "/v1/chat/completions"
GOOD = {"model": "echo", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 3}

BODIES = {
    "empty": b"",
    "not json": b"hello",
    "not utf-8": b"\xff\xfe\x00",
    "an array": b"[]",
    "a string": b'"hello"',
    "null": b"null",
    "deep": b'{"model":"echo","messages":' + b"[" * 5000 + b"]" * 5000 + b"}",
    "very deep": b"[" * 2_000_000,
    "NaN": b'{"model":"echo","messages":[{"role":"user","content":"x"}],"temperature":NaN}',
    "infinite": b'{"model":"echo","messages":[{"role":"user","content":"x"}],"temperature":1e999}',
    "digits": b'{"model":"echo","n":' + b"9" * 10_000 + b"}",
    "a temperature of 400 digits": json.dumps(GOOD | {"temperature": 10**400}).encode(),
    "a top_p of 400 digits": json.dumps(GOOD | {"top_p": 10**400}).encode(),
    "messages is a string": json.dumps(GOOD | {"messages": "hello"}).encode(),
    "messages is empty": json.dumps(GOOD | {"messages": []}).encode(),
    "a message is a number": json.dumps(GOOD | {"messages": [3]}).encode(),
    "content is a number": json.dumps(GOOD | {"messages": [{"role": "user", "content": 3}]}).encode(),
    "nothing to answer": json.dumps(GOOD | {"messages": [{"role": "user", "content": "  "}]}).encode(),
    "trailing assistant": json.dumps(
        GOOD | {"messages": [*GOOD["messages"], {"role": "assistant", "content": "x"}]}
    ).encode(),
    "half a surrogate in the user": b'{"model":"echo","messages":[{"role":"user","content":"x"}],"user":"\\ud800"}',
    "half a surrogate in an option": b'{"model":"echo","messages":[{"role":"user","content":"x"}],'
    b'"personalization":{"\\ud800":1}}',
    "half a surrogate in a role": b'{"model":"echo","messages":[{"role":"\\ud800","content":"x"}]}',
    "half a surrogate in a stop": b'{"model":"echo","messages":[{"role":"user","content":"x"}],"stop":[3,"\\ud800"]}',
    "a very long message": json.dumps(GOOD | {"messages": [{"role": "user", "content": "x" * 200_000}]}).encode(),
    "too many messages": json.dumps(GOOD | {"messages": GOOD["messages"] * 5000}).encode(),
}


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with listening(tmp_path_factory.mktemp("home")) as socket:
        yield socket


@pytest.fixture
def http(service: Socket):
    headers = {"Authorization": f"Bearer {service.service.admin}"}
    with httpx2.Client(base_url=service.url, headers=headers, timeout=30) as http:
        yield http


@pytest.fixture
def refused(http):
    """Post a raw body; return the refusal, after checking that a good request is still answered."""

    def send(raw: bytes) -> httpx2.Response:
        answer = http.post(URL, content=raw, headers={"Content-Type": "application/json"})
        assert http.post(URL, json=GOOD).status_code == 200
        return answer

    return send


@pytest.mark.parametrize("name", BODIES)
def test_hostile_bodies(refused, name):
    answer = refused(BODIES[name])
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["type"] == "invalid_request_error"
    assert len(error["message"]) < 500


def test_a_surrogate_in_the_text_is_text(refused):
    raw = b'{"model":"echo","messages":[{"role":"user","content":"cut \\ud83d"}],"user":"a"}'
    answer = refused(raw)
    assert answer.status_code == 200 and "\ufffd" in answer.json()["choices"][0]["message"]["content"]


def test_a_body_over_the_limit(refused):
    answer = refused(b'{"messages": "' + b"x" * (9 * 2**20) + b'"}')
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/v1/users/a/b", 404),
        ("GET", "/v1/users/", 404),
        ("PATCH", "/v1/users/a", 405),
        ("GET", URL, 405),
        ("GET", "/v1/users/%FF", 400),
        ("GET", "/v1/users/%ED%A0%80", 400),
        ("GET", "/v1/users/x?by=id", 400),
        ("GET", "/v1/users?limit=x", 400),
        ("GET", "/v1/users?limit=0", 400),
        ("GET", "/v1/users?limit=99999999999999", 400),
        ("GET", "/v1/updates/..%2F..%2Fetc", 404),
        ("GET", "/v1/outcomes/%00", 404),
        ("DELETE", "/v1/keys/..%2F..", 404),
        ("GET", "/v1/models/..%2F..%2Fetc%2Fpasswd", 404),
        ("GET", "/openapi.json", 404),
        ("GET", "/docs", 404),
    ],
)
def test_odd_paths(http, method, path, status):
    answer = http.request(method, path)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


BAD_MANAGEMENT = [
    ("PUT", "/v1/users/a", {"learning": "off"}),
    ("PUT", "/v1/users/a", {"learning": 1}),
    ("PUT", "/v1/users/a", {"consent": "yes"}),
    ("POST", "/v1/users/a/rollback", {}),
    ("POST", "/v1/users/a/rollback", {"version": "1"}),
    ("POST", "/v1/users/a/rollback", {"version": 0}),
    ("POST", "/v1/users/a/rollback", {"version": True}),
    ("POST", "/v1/keys", {}),
    ("POST", "/v1/keys", {"scope": "root"}),
    ("POST", "/v1/keys", {"scope": ["admin"]}),
    ("POST", "/v1/keys", {"scope": "user"}),
    ("POST", "/v1/keys", {"scope": "app", "user": "a"}),
    ("POST", "/v1/keys", {"scope": "user", "user": 5}),
    ("POST", "/v1/keys", {"scope": "app", "label": "x" * 200}),
    ("POST", "/v1/keys", {"scope": "app", "label": "a\nb"}),
    ("POST", "/v1/keys", {"scope": "app", "label": "\ud800"}),
]


@pytest.mark.parametrize(("method", "path", "body"), BAD_MANAGEMENT)
def test_bad_management_bodies(http, service, method, path, body):
    service.call(service.service.access.create_key("user", "a"))
    before = service.call(service.service.access.list_keys())
    answer = http.request(method, path, content=json.dumps(body))
    assert answer.status_code == 400, answer.text
    assert service.call(service.service.access.list_keys()) == before


def test_neither_text_nor_names_reach_the_log(with_service, caplog):
    async def work(service: Service) -> None:
        async with service.client(service.app_key) as http:
            for path in ("/v1/users/secret-alice", "/v1/users/secret-alice/versions"):
                await http.get(path)
            await http.post(URL, json=GOOD | {"user": "secret-alice", "temperature": "secret-text"})
            await http.post(URL, json=GOOD | {"messages": [{"role": "user", "content": "secret-text"}]})

    with caplog.at_level("DEBUG"):
        with_service(work)
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith(("httpx2", "httpcore2"))]
    assert any("/v1/users/{user}" in line for line in ours)
    assert not any("secret" in line for line in ours)
