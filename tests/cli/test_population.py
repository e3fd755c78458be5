"""``personalize population``."""

import hashlib
import json
from pathlib import Path

import pytest

from tests.cli.conftest import Shell
from tests.cli.test_replay import openai


@pytest.fixture()
def log(tmp_path) -> Path:
    path = tmp_path / "log.jsonl"
    lines = [openai("alice", "one", "reply one", "shorter"), "{broken", openai("bob", "hello", "reply", "no emoji")]
    path.write_text("\n".join(lines) + "\n")
    return path


def build(shell: Shell, *arguments: str, code: int = 0) -> str:
    return shell.run("population", "build", *arguments, "--backend", "echo", code=code)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_build_show_and_remove(shell, log):
    found = json.loads(build(shell, str(log), "--json"))
    assert (found["version"], found["num_people"], found["outcomes"]) == (1, 2, {"applied": 2})
    assert found["sources"][0]["digest"] == digest(log) and found["sources"][0]["num_broken"] == 1
    (shown,) = shell.json("population", "show")
    assert shown["sources"] == found["sources"] and shown["kept"] and shown["is_head"]
    assert digest(log)[:16] in shell.run("population", "show")
    (use,) = shell.json("population", "show", "--user", "alice")
    assert (use["number"], use["in_sources"]) == (1, [digest(log)])
    assert digest(log)[:16] in shell.run("population", "show", "--user", "alice")
    assert shell.json("users", "list") == []
    shell.run("population", "remove", typed="n\n", code=1)
    assert "removed 1" in shell.run("population", "remove", "1", "--yes")
    (shown,) = shell.json("population", "show")
    assert not shown["kept"] and not shown["is_head"]


def test_build_prints_what_it_came_to(shell, log):
    out = build(shell, str(log), "--without-user", "bob")
    assert "conversations_left_out      1" in out and "broken log 1 line 2: " in out and digest(log)[:16] in out


def test_a_dry_run_needs_no_home(shell, log):
    found = json.loads(build(shell, str(log), "--dry-run", "--json"))
    assert (found["version"], found["outcomes"]) == (None, {"queued": 2})
    assert not shell.home.exists()


def test_nothing_learnt_is_an_error(shell, log):
    log.write_text("{broken\n")
    assert "error: conflict: no version was published: nothing was learnt" in build(shell, str(log), code=1)


def test_a_file_that_is_not_there_is_one_line(shell, tmp_path):
    assert "error: invalid_parameter: log = " in build(shell, str(tmp_path / "nothing"), code=1)


def test_it_serves_only_where_it_is_switched_on(shell, log, monkeypatch):
    build(shell, str(log))
    assert "served by the base model" in shell.talk("new", "hello")
    monkeypatch.setenv("PERSONALIZE_POPULATION", "on")
    assert "version 1 of the population adapter" in shell.talk("new", "hello again")
    monkeypatch.setenv("PERSONALIZE_POPULATION", "maybe")
    assert "population = 'maybe' is not allowed; allowed: 'on' or 'off'" in shell.run("users", "list", code=1)


def test_forget_says_which_versions_are_to_be_built_anew(shell, log):
    build(shell, str(log))
    shell.talk("alice", "hello")
    shell.talk("carol", "hello")
    assert "build it from logs" not in shell.run("users", "forget", "carol", "--yes")
    out = shell.run("users", "forget", "alice", "--yes")
    assert digest(log)[:16] in out and "build it from logs without" in out


def test_the_receipt_as_json_holds_the_digests(shell, log):
    build(shell, str(log))
    shell.talk("alice", "hello")
    (use,) = shell.json("users", "forget", "alice", "--yes")["population"]
    assert (use["number"], use["sources"]) == (1, [digest(log)])
