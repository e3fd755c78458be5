"""``personalize undo``."""


def turns(shell) -> list[str]:
    """Ids of the turns that have taught alice, the oldest first."""
    return [update["turn_id"] for update in reversed(shell.json("users", "updates", "alice"))]


def test_an_older_turn_is_taken_back_and_called_a_recomputation(taught):
    first, _ = turns(taught)
    out = taught.run("undo", "alice", "--turn", first)
    assert "head is version 3: a re-computation without turn " + first in " ".join(out.split())
    assert "1 later turn learnt again from the beginning (1 applied)" in " ".join(out.split())
    versions = {row["number"]: row["origin"] for row in taught.json("versions", "list", "alice")}
    assert versions == {1: "update", 2: "update", 3: "recomputation"}
    assert "version.recomputation" in taught.run("audit")
    assert "served by version 3" in taught.talk("alice", "hello again")


def test_the_last_turn_is_taken_back_exactly(taught):
    assert "head is version 1: exact" in taught.run("undo", "alice", "--turn", turns(taught)[-1])


def test_a_dry_run_changes_nothing(taught):
    first, last = turns(taught)
    assert "would learn 1 later turn again from the beginning" in taught.run(
        "undo", "alice", "--turn", first, "--dry-run"
    )
    assert "would go back to version 1, which is exact" in taught.run("undo", "alice", "--turn", last, "--dry-run")
    assert len(taught.json("versions", "list", "alice")) == 2


def test_json_is_the_report(taught):
    report = taught.json("undo", "alice", "--turn", turns(taught)[0])
    assert (report["status"], report["replaced"], report["start"], report["version"]) == ("recomputed", 2, None, 3)
    assert report["outcomes"] == {"applied": 1}


def test_unknown_and_undone_turns_are_one_line(taught, fails):
    first, _ = turns(taught)
    assert fails("undo", "alice", "--turn", "0" * 32).startswith("error: not_found: ")
    assert fails("undo", "alice", "--turn", "last").startswith("error: invalid_parameter: turn = ")
    taught.run("undo", "alice", "--turn", first)
    assert "undone already" in fails("undo", "alice", "--turn", first)
    assert "--turn" in taught.run("undo", "alice", code=2)
