"""``personalize serve`` as a process of its own."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from personalize.errors import InvalidParameter
from server.cli import _check_address

SLOW_ECHO = "import personalize.backends.echo as e; e.EchoBackend.__init__.__kwdefaults__['delay_s'] = 0.05\n"
COMMAND = """
import sys
from personalize.cli.app import Commands
import typer
from server.cli import register
app = typer.Typer(cls=Commands)
app.callback()(lambda: None)
register(app)
app()
"""
CHAT = {"model": "pocket", "messages": [{"role": "user", "content": "hello"}]}


def arguments(home: Path, *more: str, before: str = "") -> list[str]:
    return [sys.executable, "-c", before + COMMAND, "serve", "--backend", "echo", "--home", str(home), *more]


@contextmanager
def serving(home: Path, *more: str, before: str = "") -> Iterator[tuple[subprocess.Popen, str, str]]:
    """Yield the process, its URL, and what it had written to standard output by then."""
    printed = home.parent / "printed"
    with printed.open("w") as out, subprocess.Popen(
        arguments(home, "--port", "0", *more, before=before), stdout=out, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as process:  # fmt: skip
        assert process.stderr is not None
        try:
            url, lines = None, []
            while url is None:
                lines.append(process.stderr.readline())
                assert lines[-1], "".join(lines)
                url = re.search(r"running on (http://\S+)", lines[-1])
            yield process, url[1], printed.read_text()
        finally:
            process.kill()


@pytest.mark.slow  # starts two processes, one after the other
def test_the_first_start_makes_an_admin_key_and_the_second_does_not(tmp_path):
    with serving(tmp_path / "home") as (process, url, printed):
        (secret,) = re.findall(r"pk-\S+", printed)
        assert url.startswith("http://127.0.0.1:")
        answer = httpx2.get(f"{url}/v1/keys", headers={"Authorization": f"Bearer {secret}"})
        assert [key["scope"] for key in answer.json()["data"]] == ["admin"]
        assert httpx2.get(f"{url}/v1/keys").status_code == 401
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    with serving(tmp_path / "home", "--host", "0.0.0.0") as (_, url, printed):
        assert "pk-" not in printed
        port = url.rpartition(":")[2]
        headers = {"Authorization": f"Bearer {secret}"}
        assert httpx2.get(f"http://127.0.0.1:{port}/v1/keys", headers=headers).status_code == 200


@pytest.mark.slow  # starts processes
@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_another_address_without_keys_is_refused_before_anything_is_loaded(tmp_path, host):
    done = subprocess.run(arguments(tmp_path, "--host", host), capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("error: invalid_parameter: host = ") and "127.0.0.1" in done.stderr
    assert "pk-" not in done.stdout + done.stderr


@pytest.mark.slow  # waits for a slow stream on purpose
def test_sigterm_answers_what_was_accepted(tmp_path):
    with serving(tmp_path / "home", before=SLOW_ECHO) as (process, url, printed):
        headers = {"Authorization": f"Bearer {re.findall(r'pk-[^ ]+', printed)[0].strip()}"}
        body = CHAT | {"stream": True, "user": "alice"}
        with httpx2.stream("POST", f"{url}/v1/chat/completions", json=body, headers=headers) as answer:
            lines = answer.iter_lines()
            first = next(lines)
            process.send_signal(signal.SIGTERM)
            rest = list(lines)
        assert first.startswith("data: {") and rest[-2:] == ["data: [DONE]", ""]
        assert process.wait(20) == 0
        with pytest.raises(httpx2.TransportError):
            httpx2.get(f"{url}/health")


@pytest.mark.slow  # starts a process
def test_a_bad_setting_is_one_line(tmp_path):
    done = subprocess.run(arguments(tmp_path, "--learning", "never"), capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("error: invalid_parameter: learning = 'never'") and done.stderr.count("\n") == 1


def listen(host: str, port: int) -> None:
    asyncio.run(_check_address(host, port))


def test_a_port_that_is_taken_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InvalidParameter, match=f"'127.0.0.1:{port}' is not allowed; .*address already in use"):
            listen("127.0.0.1", port)
    listen("127.0.0.1", port)


@pytest.mark.parametrize("host", ["192.0.2.1", "a" * 80], ids=["another machine's", "no name"])
def test_a_host_that_nobody_can_listen_on_is_refused(host):
    with pytest.raises(InvalidParameter, match="an address that can be listened on"):
        listen(host, 0)


@pytest.mark.slow  # starts a process
def test_a_port_that_is_taken_is_one_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = arguments(tmp_path, "--port", str(taken.getsockname()[1]))
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("error: invalid_parameter: host:port = ") and done.stderr.count("\n") == 1
