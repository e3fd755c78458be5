import asyncio
import contextlib
import logging

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from server.edge import Edge

DIARY = "dear " + "diary"


async def hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse(request.path_params["name"])


async def upload(request: Request) -> PlainTextResponse:
    return PlainTextResponse(await request.body())


async def download(request: Request) -> StreamingResponse:
    async def content():
        yield b"a part"

    return StreamingResponse(content())


async def broken(request: Request) -> PlainTextResponse:
    raise ValueError(DIARY)


SEEN: list[tuple] = []
APP = Starlette(
    routes=[
        Route("/hello/{name}", hello),
        Route("/broken", broken),
        Route("/upload", upload),
        Route("/download", download),
    ],
    middleware=[Middleware(Edge, observe=lambda *row: SEEN.append(row))],
)


def get(path: str) -> httpx2.Response:
    async def call() -> httpx2.Response:
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(APP), base_url="http://test") as http:
            return await http.get(path)

    return asyncio.run(call())


def test_every_answer_has_a_request_id_of_its_own():
    first, second = get("/hello/a"), get("/hello/a")
    assert len(first.headers["x-request-id"]) == 32
    assert first.headers["x-request-id"] != second.headers["x-request-id"]


@pytest.mark.parametrize("name", ["a%2Fb", "a%252Fb", "%C3%A9", "%F0%9F%98%80"])
def test_path_segments_reach_the_route_as_they_were_sent(name):
    assert get(f"/hello/{name}").text == name


def test_a_fault_is_an_envelope_and_a_log_line_without_its_message(caplog):
    with caplog.at_level(logging.DEBUG):
        response = get("/broken")
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "error"
    assert "ValueError" in caplog.text and "broken" in caplog.text
    assert DIARY not in caplog.text and DIARY not in response.text


def test_the_log_and_the_metrics_know_templates_not_paths(caplog):
    SEEN.clear()
    with caplog.at_level(logging.INFO, logger="server"):
        get("/hello/alice")
    assert "alice" not in caplog.text
    assert [(row[0], row[2]) for row in SEEN] == [("GET", 200)]
    assert "alice" not in str(SEEN)


@pytest.mark.parametrize(("path", "status"), [("/upload", 499), ("/download", 200)])
def test_a_client_that_goes_away_in_the_middle_of_a_body_is_counted_and_is_no_fault(caplog, path, status):
    async def receive() -> dict:
        return {"type": "http.disconnect"}

    async def send(message: dict) -> None:
        if message["type"] == "http.response.body":
            raise OSError

    SEEN.clear()
    version = {"spec_version": "2.4"}  # from it on a server may say by an OSError that nobody reads
    scope = {"type": "http", "asgi": version, "method": "GET", "path": path, "query_string": b"", "headers": []}
    with caplog.at_level(logging.ERROR), contextlib.suppress(OSError):
        asyncio.run(APP(scope, receive, send))
    assert [(row[0], row[2]) for row in SEEN] == [("GET", status)]
    assert not caplog.records
