"""``personalize users``."""

import re


def test_users_are_listed_shown_paused_and_forgotten(taught):
    (listed,) = taught.json("users", "list")
    shown = taught.json("users", "show", "alice")
    assert shown == listed
    assert shown["num_turns"] == 3 and shown["head"] == 2
    assert "paused" in taught.run("users", "pause", "alice")
    assert taught.json("users", "show", "alice")["learning"] == "paused"
    assert "active" in taught.run("users", "resume", "alice")
    assert taught.json("users", "forget", "alice", "--yes")["num_turns"] == 3
    assert taught.json("users", "list") == []


def test_a_listing_never_shows_external_ids(taught):
    assert "alice" not in taught.run("users", "list")


def test_the_table_names_the_user_by_its_random_id(taught):
    out = taught.run("users", "list")
    assert taught.json("users", "list")[0]["user_id"] in out
    assert re.search(r"learning.*active", out, re.DOTALL)


def test_pages_follow_each_other(shell):
    for name in ("a", "b", "c"):
        shell.talk(name, "hello")
    first = shell.json("users", "list", "--limit", "2")
    rest = shell.json("users", "list", "--after", first[-1]["user_id"])
    assert len(first) == 2 and len(rest) == 1
    assert len({user["user_id"] for user in first + rest}) == 3


def test_consent_is_recorded_and_withdrawn(taught):
    assert taught.json("users", "show", "alice")["consent"] is None
    assert "given" in taught.run("users", "consent", "alice")
    assert taught.json("users", "show", "alice")["consent"] is True
    assert "withdrawn" in taught.run("users", "consent", "alice", "--withdraw")
    assert taught.json("users", "show", "alice")["consent"] is False


def test_forget_asks_and_a_no_changes_nothing(taught):
    out = taught.run("users", "forget", "alice", typed="n\n", code=1)
    assert "Erase 3 turns" in out
    assert taught.json("users", "show", "alice")["num_turns"] == 3
    taught.run("users", "forget", "alice", typed="y\n")
    assert taught.json("users", "list") == []


def test_updates_are_listed_newest_first(taught):
    updates = taught.json("users", "updates", "alice")
    assert [update["outcome"] for update in updates] == ["applied", "applied"]
    assert [update["version"] for update in updates] == [2, 1]
    assert len(taught.json("users", "updates", "alice", "--limit", "1")) == 1
    assert "applied" in taught.run("users", "updates", "alice")


def test_an_unknown_user_is_one_line_and_exit_code_1(taught, fails):
    for command in ("show", "pause", "resume", "updates"):
        assert fails("users", command, "nobody").startswith("error: not_found: ")
    assert fails("users", "forget", "nobody", "--yes").startswith("error: not_found: ")


def test_a_value_out_of_range_is_named(taught, fails):
    assert "limit = 0 is not allowed" in fails("users", "list", "--limit", "0")


def test_looking_makes_no_store(shell, fails):
    assert "home = " in fails("users", "list")
    assert not shell.home.exists()
