"""``personalize replay``."""

import json
from pathlib import Path

import pytest

from personalize.errors import NotFound, StorageUnavailable
from personalize.service import SyncPersonalizer
from tests.cli.conftest import Fails, Shell


def openai(user: str | None, *texts: str) -> str:
    roles = ("user", "assistant")
    return json.dumps(
        {"messages": [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)], "user": user}
    )


def wildchat(user: str, *texts: str) -> str:
    roles = ("user", "assistant")
    said = [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]
    return json.dumps({"conversation": said, "hashed_ip": user})


def sharegpt(*texts: str) -> str:
    speakers = ("human", "gpt")
    return json.dumps(
        {"conversations": [{"from": speakers[i % 2], "value": t} for i, t in enumerate(texts)], "id": "x_0"}
    )


@pytest.fixture()
def log(tmp_path) -> Path:
    path = tmp_path / "log.jsonl"
    lines = [
        openai("alice", "one", "reply one", "shorter", "reply two", "even shorter"),
        "{broken",
        wildchat("bob", "hello", "reply", "no emoji"),
        openai("carol", "hello", "reply"),
        sharegpt("hello", "reply", "a haiku, please"),
        openai("alice", "two", "reply three", "x" * 70_000),
        openai("alice", "three", "reply four", "a list"),
        '{"messages": "nothing"}',
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def heads(shell: Shell, *users: str) -> list[int | None]:
    return [shell.json("users", "show", user)["head"] for user in users]


def test_a_log_is_learnt_user_by_user_and_everything_is_counted(shell, log):
    found = shell.json("replay", str(log))
    assert found == {
        "lines": 8,
        "broken_lines": 2,
        "conversations": 6,
        "conversations_without_user": 1,
        "users": 3,
        "users_without_turns": 1,
        "queued_now": 4,
        "outcomes": {"applied": 4, "skipped_too_long": 1},
        "first_broken": found["first_broken"],
    }
    assert [reason.partition(":")[0] for reason in found["first_broken"]] == ["line 2", "line 8"]
    assert heads(shell, "alice", "bob") == [3, 1]
    assert len(shell.json("users", "list")) == 2, "who taught nothing is nobody's row"


def test_run_again_it_teaches_nothing_twice(shell, log):
    shell.run("replay", str(log))
    again = shell.json("replay", str(log))
    assert again["queued_now"] == 0 and again["outcomes"] == {"skipped_duplicate": 4, "skipped_too_long": 1}
    assert heads(shell, "alice", "bob") == [3, 1]


def test_in_pieces_it_goes_on_where_it_stopped(shell, log):
    counts = [shell.json("replay", str(log), "--limit", limit)["queued_now"] for limit in ("1", "2", "9")]
    assert counts == [1, 2, 1]
    updates = shell.json("users", "updates", "alice")
    assert [one["version"] for one in reversed(updates)] == [1, 2, 3]


def test_a_run_that_is_stopped_in_the_middle_is_finished_by_the_next(shell, log, monkeypatch):
    update = SyncPersonalizer.update
    calls = []

    def stopped(self, update_id):
        calls.append(update_id)
        raise StorageUnavailable("stopped")

    monkeypatch.setattr(SyncPersonalizer, "update", stopped)
    assert "error: storage_unavailable: stopped" in shell.run("replay", str(log), code=1)
    assert len(calls) == 1
    monkeypatch.setattr(SyncPersonalizer, "update", update)
    assert shell.json("replay", str(log))["outcomes"]["skipped_duplicate"] == 4
    shell.run("replay", str(log))
    assert heads(shell, "alice", "bob") == [3, 1]


def test_a_dry_run_changes_nothing_and_needs_no_home(shell, log):
    found = shell.json("replay", str(log), "--dry-run")
    assert (found["queued_now"], found["outcomes"]) == (4, {"queued": 4, "skipped_too_long": 1})
    assert not shell.home.exists()
    shell.run("replay", str(log), "--limit", "1")
    before = shell.json("users", "list")
    out = shell.run("replay", str(log), "--dry-run")
    assert "would_be_queued             3" in out and "skipped_duplicate           1" in out
    assert shell.json("users", "list") == before


def test_a_log_without_users_needs_one(shell, log):
    log.write_text(sharegpt("hello", "reply", "a haiku, please") + "\n")
    assert shell.json("replay", str(log))["conversations_without_user"] == 1
    assert shell.json("replay", str(log), "--user", "dave")["outcomes"] == {"applied": 1}
    assert heads(shell, "dave") == [1]


def test_a_conversation_that_is_refused_is_a_broken_line(shell, log):
    log.write_text(openai("x" * 300, "hello", "reply", "shorter") + "\n")
    found = shell.json("replay", str(log))
    assert (found["broken_lines"], found["users"]) == (1, 0) and "at most 256" in found["first_broken"][0]


def test_an_update_of_a_user_who_was_forgotten_is_counted_as_such(shell, log, monkeypatch):
    def gone(self, update_id):
        raise NotFound("no update")

    monkeypatch.setattr(SyncPersonalizer, "update", gone)
    assert shell.json("replay", str(log))["outcomes"]["cancelled_erasure"] == 4


def test_learning_that_is_paused_is_an_error_and_no_endless_wait(shell, log, monkeypatch):
    status = SyncPersonalizer.status
    monkeypatch.setattr(SyncPersonalizer, "status", lambda self: {**status(self), "learning_paused_reason": "full"})
    monkeypatch.setattr(SyncPersonalizer, "settled", lambda self, user=None, timeout_s=None: False)
    monkeypatch.setattr("personalize.updates.consumer.Consumer.run", _nothing)
    assert "nothing can be learnt now: full" in shell.run("replay", str(log), "--limit", "2", code=1)


async def _nothing(self) -> None:
    return None


def test_a_file_that_is_not_there_is_one_line(fails: Fails, tmp_path):
    assert fails("replay", str(tmp_path / "nothing")).startswith("error: invalid_parameter: log = ")
