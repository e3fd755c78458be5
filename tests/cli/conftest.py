"""The command line on the echo engine: a whole store, no model."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from personalize.cli.app import build

NEEDS_A_MODEL = ("chat", "explain", "replay", "rebase", "undo")


class Shell:
    """Runs commands in one home and keeps their last result."""

    def __init__(self, home: Path):
        self.home = home
        self._app = build()
        self._runner = CliRunner()

    def run(self, *arguments: str, typed: str = "", code: int = 0) -> str:
        """Return the output of a command in the home, which must end with ``code``; what needs a model gets echo."""
        engine = ("--backend", "echo") if arguments[0] in NEEDS_A_MODEL else ()
        return self.raw(*arguments, "--home", str(self.home), *engine, typed=typed, code=code)

    def raw(self, *arguments: str, typed: str = "", code: int = 0) -> str:
        result = self._runner.invoke(self._app, arguments, input=typed)
        assert result.exit_code == code, f"{arguments} ended with {result.exit_code}\n{result.output}"
        return result.output

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json"))

    def talk(self, user: str, *lines: str) -> str:
        """Let a user say some lines; returns what the terminal showed."""
        return self.run("chat", user, typed="".join(f"{line}\n" for line in lines))


@pytest.fixture()
def shell(tmp_path) -> Shell:
    return Shell(tmp_path / "home")


@pytest.fixture()
def taught(shell) -> Shell:
    """A home in which alice has two versions."""
    shell.talk("alice", "hello", "shorter, please", "even shorter")
    return shell


Fails = Callable[..., str]


@pytest.fixture()
def fails(shell) -> Fails:
    """Runs a command that must be refused; returns its one line."""

    def call(*arguments: str, typed: str = "") -> str:
        out = shell.run(*arguments, typed=typed, code=1)
        (line,) = [line for line in out.splitlines() if line.startswith("error: ")]
        return line

    return call
