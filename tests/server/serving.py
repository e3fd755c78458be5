"""A service on the echo backend, in process and over a real socket."""

import asyncio
import contextlib
import io
import tempfile
import threading
import zipfile
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import uvicorn
from fastapi import FastAPI

from personalize.access import Access
from personalize.backends.echo import write_folder
from personalize.config import ServiceSettings, Settings
from personalize.service import Personalizer
from server.app import create_app

T = TypeVar("T")


def adapter_zip(seed: str = "seed", **changed: bytes | None) -> bytes:
    """A zip file of an adapter folder for the echo engine, some of whose files are others, or missing (None)."""
    with tempfile.TemporaryDirectory() as folder:
        write_folder(Path(folder), seed)
        files = {file.name: file.read_bytes() for file in sorted(Path(folder).iterdir())}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in {**files, **changed}.items():
            if content is not None:
                archive.writestr(name, content)
    return out.getvalue()


@dataclass(slots=True)
class Service:
    """An open service with an admin key and an app key."""

    personalizer: Personalizer
    access: Access
    app: FastAPI
    admin: str
    app_key: str

    def client(self, secret: str | None = None, **options: Any) -> httpx2.AsyncClient:
        headers = {"Authorization": f"Bearer {secret}"} if secret else {}
        transport = httpx2.ASGITransport(self.app)
        return httpx2.AsyncClient(transport=transport, base_url="http://test", headers=headers, **options)


def settings(home: Path, **service: Any) -> Settings:
    limits = ServiceSettings(**{"max_choices": 4, **service})
    return Settings(model="echo", backend="echo", home=home, service=limits)


@contextlib.asynccontextmanager
async def opened(home: Path, service: Mapping[str, Any] | None = None, **options: Any) -> AsyncIterator[Service]:
    """Open a service; ``service`` changes its settings, the rest is for ``create_app``."""
    async with Personalizer.open(settings=settings(home, **(service or {}))) as personalizer:
        access = Access(personalizer)
        _, admin = await access.create_key("admin")
        _, app_key = await access.create_key("app")
        yield Service(personalizer, access, create_app(personalizer, access, **options), admin, app_key)


@dataclass(slots=True)
class Socket:
    """A service behind a real socket, on a thread and loop of its own."""

    url: str
    service: Service
    loop: asyncio.AbstractEventLoop

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the service's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)


@contextlib.contextmanager
def listening(home: Path, **options: Any) -> Iterator[Socket]:
    started, found = threading.Event(), []

    async def serve() -> None:
        async with opened(home, **options) as service:
            server = uvicorn.Server(uvicorn.Config(service.app, port=0, log_level="warning", access_log=False))
            serving = asyncio.create_task(server.serve())
            while not server.started and not serving.done():
                await asyncio.sleep(0.005)
            port = server.servers[0].sockets[0].getsockname()[1]
            found.extend([server, Socket(f"http://127.0.0.1:{port}", service, asyncio.get_running_loop())])
            started.set()
            await serving

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert started.wait(30)
    try:
        yield found[1]
    finally:
        found[0].should_exit = True
        thread.join(30)
        assert not thread.is_alive()


async def teach(service: Service, user: str, follow_ups: int = 1) -> list[str]:
    """Chat as ``user`` until so many follow-ups have become versions; return the request ids that carried them."""
    messages = [{"role": "user", "content": f"hello from {user}"}]
    request_ids = []
    async with service.client(service.app_key) as http:
        for number in range(follow_ups + 1):
            body = {"model": "echo", "messages": messages, "user": user}
            answer = (await http.post("/v1/chat/completions", json=body)).json()
            request_ids.append(answer["personalization"]["request_id"])
            text = answer["choices"][0]["message"]["content"]
            messages += [{"role": "assistant", "content": text}, {"role": "user", "content": f"shorter {number}"}]
            assert await service.personalizer.settled(user, timeout_s=20)
    return request_ids[1:]
