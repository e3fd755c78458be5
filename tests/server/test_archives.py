"""Export, import and pinning over HTTP."""

import hashlib
import io
import json
import time
import urllib.parse
import zipfile
from collections.abc import Callable
from socket import create_connection

import pytest

from tests.server.serving import Service, Socket, adapter_zip, listening, teach


def unzipped(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def left_behind(service: Service) -> list[str]:
    home = service.personalizer.settings.home
    return [str(path) for path in home.glob("staging/*/*")]


def until(ready: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + 10
    while not ready():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def test_a_version_goes_out_and_comes_in_again(with_service):
    async def work(service: Service) -> None:
        await teach(service, "alice", follow_ups=2)
        await teach(service, "bob", follow_ups=1)
        async with service.client(service.admin) as http:
            answer = await http.get("/v1/users/alice/versions/2/export")
            assert answer.headers["content-type"] == "application/zip"
            assert answer.headers["content-disposition"] == 'attachment; filename="adapter-v2.zip"'
            assert int(answer.headers["content-length"]) == len(answer.content)
            files = unzipped(answer.content)
            assert set(files) == {"adapter_config.json", "adapter_model.safetensors", "manifest.json"}
            taken = await http.post("/v1/users/bob/versions", content=answer.content)
            assert taken.status_code == 200
            version = taken.json()
            assert (version["number"], version["origin"], version["is_head"]) == (2, "import", True)
            listed = (await http.get("/v1/users/alice/versions")).json()["data"]
            assert version["digest"] == next(v["digest"] for v in listed if v["number"] == 2)
            chat = {"model": "echo", "user": "bob", "messages": [{"role": "user", "content": "hello"}]}
            answered = (await http.post("/v1/chat/completions", json=chat)).json()
            assert answered["choices"][0]["message"]["content"] == "[v2] You said: hello"
        assert left_behind(service) == []

    with_service(work)


def test_all_of_a_person_goes_out(with_service):
    async def work(service: Service) -> None:
        await teach(service, "alice")
        await teach(service, "bob")
        _, own = await service.access.create_key("user", "alice")
        async with service.client(own) as http:
            answer = await http.get("/v1/users/alice/export")
        assert answer.headers["content-disposition"] == 'attachment; filename="user.zip"'
        files = unzipped(answer.content)
        assert json.loads(files["user.json"])["user_id"] == (await service.personalizer.user("alice")).user_id
        assert sum(name.startswith("turns/") for name in files) == 2
        assert b"hello from bob" not in b"".join(files.values())
        assert left_behind(service) == []

    with_service(work)


def test_pinned_and_released(with_service):
    async def work(service: Service) -> None:
        await teach(service, "alice", follow_ups=2)
        async with service.client(service.app_key) as http:
            for pinned in (True, False):
                answer = await http.put("/v1/users/alice/versions/1", json={"pinned": pinned})
                assert (answer.json()["number"], answer.json()["pinned"]) == (1, pinned)
                listed = (await http.get("/v1/users/alice/versions")).json()["data"]
                assert {v["number"]: v["pinned"] for v in listed} == {1: pinned, 2: False}
                assert next(v for v in listed if v["number"] == 1) == answer.json()
            assert (await http.put("/v1/users/alice/versions/9", json={"pinned": True})).status_code == 404

    with_service(work)


@pytest.fixture(scope="module")
def socket(tmp_path_factory):
    with listening(tmp_path_factory.mktemp("home"), service={"max_import_bytes": 1 << 20}) as socket:
        socket.call(teach(socket.service, "alice"))
        yield socket


@pytest.fixture
def http(socket: Socket):
    import httpx2

    headers = {"Authorization": f"Bearer {socket.service.admin}"}
    with httpx2.Client(base_url=socket.url, headers=headers, timeout=30) as http:
        yield http


OTHER_SHAPE = json.dumps(
    {
        f"base_model.model.model.layers.0.self_attn.q_proj.lora_{side}.weight": {
            "dtype": "F32",
            "shape": shape,
            "data_offsets": [offset, offset + 48],
        }
        for side, shape, offset in (("A", [2, 6], 0), ("B", [6, 2], 48))
    }
).encode()
FOREIGN = len(OTHER_SHAPE).to_bytes(8, "little") + OTHER_SHAPE + bytes(96)

BAD = {
    "nothing": (b"", 400, "adapter_corrupt"),
    "no zip": (b"hello" * 50, 400, "adapter_corrupt"),
    "climbs out": (adapter_zip(**{"../../evil": b"x"}), 400, "adapter_corrupt"),
    "a file too many": (adapter_zip(**{"train.py": b"x"}), 400, "adapter_corrupt"),
    "a file too few": (adapter_zip(**{"adapter_model.safetensors": None}), 400, "adapter_corrupt"),
    "no tensors": (adapter_zip(**{"adapter_model.safetensors": b"\xff" * 100}), 400, "adapter_corrupt"),
    "no plain LoRA": (adapter_zip(**{"adapter_config.json": b'{"peft_type": "IA3"}'}), 400, "adapter_mismatch"),
    "another base": (adapter_zip(**{"adapter_model.safetensors": FOREIGN}), 400, "adapter_mismatch"),
    "too long": (bytes(2 << 20), 413, "request_too_large"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_imported_is_refused_and_nothing_is_left(http, socket, name):
    body, status, code = BAD[name]
    before = http.get("/v1/users/alice/versions").json()
    answer = http.post("/v1/users/alice/versions", content=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["type"]) == (status, code, "invalid_request_error")
    assert error["message"] and str(socket.service.personalizer.settings.home) not in error["message"]
    assert http.get("/v1/users/alice/versions").json() == before
    assert left_behind(socket.service) == []
    chat = {"model": "echo", "user": "alice", "messages": [{"role": "user", "content": "hello"}]}
    assert http.post("/v1/chat/completions", json=chat).status_code == 200


def test_a_bomb_is_refused_by_what_it_would_grow_to(http):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("adapter_config.json", b"{}")
        archive.writestr("adapter_model.safetensors", bytes(64 << 20))
    assert len(out.getvalue()) < 1 << 20
    answer = http.post("/v1/users/alice/versions", content=out.getvalue())
    assert answer.status_code == 400 and "67108864 bytes; allowed: up to 1048576" in answer.json()["error"]["message"]


def test_a_body_of_unknown_length_is_read_no_further_than_the_limit(http, socket):
    chunks = (bytes(1 << 16) for _ in range(40))
    answer = http.post("/v1/users/alice/versions", content=chunks)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")
    assert left_behind(socket.service) == []


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("PUT", "versions/1", {}, 400, "pinned"),
        ("PUT", "versions/1", {"pinned": 1}, 400, "pinned = 1"),
        ("PUT", "versions/0", {"pinned": True}, 400, "version = '0'"),
        ("PUT", "versions/x", {"pinned": True}, 400, "version = 'x'"),
        ("GET", "versions/-1/export", None, 400, "version = '-1'"),
        ("GET", f"versions/{'9' * 30}/export", None, 400, "version"),
        ("GET", "versions/99/export", None, 404, "99"),
    ],
)
def test_bad_requests(http, method, path, body, status, words):
    answer = http.request(method, f"/v1/users/alice/{path}", json=body)
    assert answer.status_code == status and words in answer.json()["error"]["message"]


def test_an_upload_that_breaks_off_leaves_nothing_and_is_no_fault(http, socket, caplog):
    address = urllib.parse.urlsplit(socket.url)
    head = f"POST /v1/users/alice/versions HTTP/1.1\r\nHost: test\r\nAuthorization: {http.headers['authorization']}\r\n"
    metrics = socket.service.app.state.shared.metrics
    with caplog.at_level("ERROR"):
        with create_connection((address.hostname, address.port)) as line:
            line.sendall(f"{head}Content-Length: 1000\r\n\r\na part".encode())
            until(lambda: left_behind(socket.service))
        until(lambda: b'status="499"' in metrics.text())
    assert left_behind(socket.service) == []
    assert not caplog.records


def test_nobody_unknown_is_made_by_an_import(http):
    users = http.get("/v1/users").json()["data"]
    assert http.post("/v1/users/nobody/versions", content=adapter_zip()).status_code == 404
    assert http.get("/v1/users").json()["data"] == users


def test_on_a_full_disk_export_and_import_say_so_and_chats_go_on(with_service, monkeypatch):
    async def work(service: Service) -> None:
        await teach(service, "alice")

        def full(*arguments):
            raise OSError(28, "No space left on device")

        async with service.client(service.admin) as http:
            with monkeypatch.context() as patch:
                patch.setattr("adapters_store.archive.sync_file", full)
                for path in ("export", "versions/1/export"):
                    answer = await http.get(f"/v1/users/alice/{path}")
                    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "storage_unavailable")
                    assert int(answer.headers["retry-after"]) >= 1
            with monkeypatch.context() as patch:
                patch.setattr("server.transfer.open", full, raising=False)
                answer = await http.post("/v1/users/alice/versions", content=adapter_zip())
                assert (answer.status_code, answer.json()["error"]["code"]) == (503, "storage_unavailable")
            chat = {"model": "echo", "user": "alice", "messages": [{"role": "user", "content": "hello"}]}
            assert (await http.post("/v1/chat/completions", json=chat)).status_code == 200
        assert left_behind(service) == []

    with_service(work)


def test_the_exported_bytes_are_the_stored_ones(http, socket):
    files = unzipped(http.get("/v1/users/alice/versions/1/export").content)
    (stored,) = socket.service.personalizer.settings.home.glob("users/*/versions/*@1-*/adapter_model.safetensors")
    assert hashlib.sha256(files["adapter_model.safetensors"]).digest() == hashlib.sha256(stored.read_bytes()).digest()
