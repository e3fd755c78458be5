"""``personalize rebase``: the echo engine with another digest stands for another base."""

import pytest

from personalize.backends import echo
from personalize.errors import Conflict
from personalize.service import SyncPersonalizer


@pytest.fixture()
def moved(taught, monkeypatch):
    """A home with two users of a base that is not opened any more."""
    taught.talk("bob", "hello", "a haiku, please")
    monkeypatch.setattr(echo, "BASE_DIGEST", "f" * 64)
    return taught


def rebased(shell, *options: str):
    return {row["num_turns"]: row for row in shell.json("rebase", "--to", "echo", *options)}


def test_everybody_is_rebuilt_once(moved):
    rows = rebased(moved)
    assert {turns: (row["status"], row["source"], row["version"]) for turns, row in rows.items()} == {
        1: ("rebuilt", 1, 2),
        2: ("rebuilt", 2, 3),
    }
    assert rebased(moved) == {}
    versions = {row["number"]: row["origin"] for row in moved.json("versions", "list", "alice")}
    assert versions == {1: "update", 2: "update", 3: "rebase"}
    assert "served by version 3" in moved.talk("alice", "hello again")


def test_a_dry_run_changes_nothing(moved):
    assert {row["status"] for row in rebased(moved, "--dry-run").values()} == {"planned"}
    assert len(moved.json("versions", "list", "alice")) == 2


def test_one_user_only(moved):
    (row,) = moved.json("rebase", "--to", "echo", "--user", "bob")
    assert row["status"] == "rebuilt" and len(moved.json("versions", "list", "alice")) == 2
    assert "current" in moved.run("rebase", "--to", "echo", "--user", "bob")


def test_a_conflict_does_not_stop_the_others_and_is_exit_code_1(moved, monkeypatch):
    rebase, names = SyncPersonalizer.rebase, []

    def one_moves(self, user, *, dry_run=False):
        names.append(user)
        if len(names) == 1:
            raise Conflict("the head has moved")
        return rebase(self, user, dry_run=dry_run)

    monkeypatch.setattr(SyncPersonalizer, "rebase", one_moves)
    out = moved.run("rebase", "--to", "echo", code=1)
    assert "error: conflict: user " in out and "rebuilt" in out and len(names) == 2


def test_the_new_base_must_be_named_and_the_home_must_be_there(shell, fails):
    assert "--to" in shell.run("rebase", code=2)
    assert fails("rebase", "--to", "echo").startswith("error: invalid_parameter: home = ")
