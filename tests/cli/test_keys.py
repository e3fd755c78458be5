"""``personalize keys``."""

import json

import pytest


def keys(shell, *arguments: str, code: int = 0) -> str:
    return shell.raw("keys", *arguments, "--home", str(shell.home), code=code)


def listed(shell) -> list[dict]:
    return json.loads(keys(shell, "list", "--json"))


def test_keys_are_created_listed_and_revoked(shell):
    made = json.loads(keys(shell, "create", "--scope", "app", "--label", "mine", "--json"))
    (key,) = listed(shell)
    assert key == {name: value for name, value in made.items() if name != "secret"}
    assert (key["scope"], key["label"], key["revoked"]) == ("app", "mine", False)
    keys(shell, "revoke", key["key_id"])
    assert listed(shell)[0]["revoked"] is True


def test_the_secret_is_shown_once(shell):
    secret = keys(shell, "create", "--scope", "admin").splitlines()[0]
    assert len(secret) > 20
    assert secret not in keys(shell, "list") and secret not in keys(shell, "list", "--json")


@pytest.mark.parametrize("label", ["[/prod]", "[prod] web", ":warning:"])
def test_a_label_is_never_markup(shell, label):
    keys(shell, "create", "--scope", "app", "--label", label)
    assert f" {label} " in keys(shell, "list")


def test_a_user_key_is_one_user(shell):
    made = json.loads(keys(shell, "create", "--scope", "user", "--user", "alice", "--json"))
    assert made["user_id"] is not None
    assert shell.json("users", "show", "alice")["user_id"] == made["user_id"]


def test_scope_and_user_must_fit(shell):
    assert "error: invalid_parameter: user" in keys(shell, "create", "--scope", "user", code=1)
    assert "error: invalid_parameter: user" in keys(shell, "create", "--scope", "app", "--user", "alice", code=1)
    assert "error: invalid_parameter: scope = 'root'" in keys(shell, "create", "--scope", "root", code=1)


def test_an_unknown_key_and_an_unknown_home_are_one_line(shell):
    assert "error: invalid_parameter: home" in keys(shell, "list", code=1)
    keys(shell, "create", "--scope", "admin")
    assert "error: not_found: " in keys(shell, "revoke", "nothing", code=1)
