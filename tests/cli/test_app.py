"""The application as a whole: its commands, its errors, what it loads."""

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import personalize
from personalize.cli import app, demo, options
from personalize.errors import InvalidParameter


def commands(application: typer.Typer) -> set[str]:
    groups = {group.name for group in application.registered_groups}
    return groups | {command.name for command in application.registered_commands}


def entries(monkeypatch, **targets: str) -> None:
    found = [EntryPoint(name, target, app.GROUP) for name, target in targets.items()]
    monkeypatch.setattr(app, "entry_points", lambda group: found)


def test_our_own_commands_are_there(monkeypatch):
    entries(monkeypatch)
    assert commands(app.build()) == {
        "demo",
        "chat",
        "explain",
        "calibrate",
        "audit",
        "replay",
        "rebase",
        "undo",
        "population",
        "users",
        "versions",
        "keys",
    }


def test_commands_come_from_the_entry_point_group(monkeypatch):
    entries(monkeypatch, serve="server.cli:register")
    assert "serve" in commands(app.build())


def test_a_package_whose_libraries_are_missing_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "absent_library", None)
    entries(monkeypatch, serve="absent_library:register")
    result = CliRunner().invoke(app.build(), ["serve"])
    assert result.exit_code == 1
    assert "error: not_installed: " in result.output and "absent_library" in result.output


def test_wrong_usage_is_exit_code_2(shell):
    assert "No such command" in shell.raw("nonsense", code=2)
    assert "Missing argument" in shell.raw("users", "show", code=2)


def test_an_error_of_several_lines_becomes_one(monkeypatch):
    def broken(target) -> None:
        @target.command("break")
        def command() -> None:
            raise InvalidParameter("x", 1, "two\nlines")

    monkeypatch.setattr(app, "entry_points", lambda group: [])
    application = app.build()
    broken(application)
    result = CliRunner().invoke(application, ["break"])
    assert result.exit_code == 1
    assert result.output == "error: invalid_parameter: x = 1 is not allowed; allowed: two lines\n"


def test_every_listing_speaks_json(shell):
    for command in (("users", "list"), ("users", "updates"), ("versions", "list"), ("keys", "list")):
        assert "--json" in shell.raw(*command, "--help")


def test_every_command_and_every_option_says_what_it_is():
    def silent(command, path: tuple[str, ...]) -> list[tuple[str, ...]]:
        own = [(*path, option.name) for option in command.params if not option.help]
        below = [
            found for name, one in getattr(command, "commands", {}).items() for found in silent(one, (*path, name))
        ]
        return [*own, *below] if command.help else [path, *own, *below]

    assert silent(typer.main.get_command(app.build()), ("personalize",)) == []


def test_the_version_is_told(shell):
    assert shell.raw("--version") == f"personalize {personalize.__version__}\n"


def test_the_demo_hands_its_options_on_and_returns_its_exit_code(shell, monkeypatch, tmp_path):
    from personalize.evaluation import demo as play

    seen = []
    monkeypatch.setattr(play, "main", lambda *arguments: seen.append(arguments) or 1)
    shell.raw("demo", "--output", str(tmp_path), "--seed", "7", code=1)
    assert seen == [(tmp_path, 7, None)]
    assert demo.demo.__doc__


@pytest.mark.parametrize(
    ("environment", "given", "expected"),
    [
        ({}, {}, "pocket"),
        ({"PERSONALIZE_MODEL": "a/b"}, {}, "a/b"),
        ({"PERSONALIZE_MODEL": "a/b"}, {"model": "c/d"}, "c/d"),
    ],
)
def test_an_option_counts_before_the_environment(monkeypatch, environment, given, expected):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert options.settings(**given).model == expected


def test_learning_and_database_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("PERSONALIZE_LEARNING", "ask")
    monkeypatch.setenv("PERSONALIZE_DATABASE_URL", "sqlite:///x")
    made = options.settings()
    assert (made.service.learning, made.url) == ("ask", "sqlite:///x")
    monkeypatch.setenv("PERSONALIZE_LEARNING", "sometimes")
    with pytest.raises(InvalidParameter, match="learning"):
        options.settings()


def test_an_unknown_backend_is_refused(shell):
    out = shell.raw("chat", "alice", "--backend", "magic", code=1)
    assert "error: invalid_parameter: backend = 'magic'" in out


@pytest.mark.parametrize(
    ("command", "named"),
    [
        (("keys", "revoke", "\udcff"), "key_id"),
        (("users", "list", "--after", "\udcff"), "after"),
        (("population", "build", "log", "--without-user", "\udcff"), "without_user"),
        (("serve", "--host", "\udcff"), "host"),
    ],
)
def test_an_argument_that_is_not_utf8_is_named(shell, command, named):
    out = shell.raw(*command, code=1)
    assert out == f"error: invalid_parameter: {named} = '\\udcff' is not allowed; allowed: UTF-8 text\n"


def test_a_home_that_cannot_be_looked_at_is_one_line(shell):
    out = shell.raw("users", "list", "--home", "x" * 300, code=1)
    assert out.startswith("error: invalid_parameter: home = ") and out.count("\n") == 1


def test_a_dry_run_does_not_take_a_home_that_cannot_be_looked_at_for_none(monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    chosen = options.settings(Path("home"))
    with monkeypatch.context() as patch, pytest.raises(InvalidParameter, match="Permission denied"):
        patch.setattr(Path, "is_dir", refuse)
        with options.place_of(chosen, dry_run=True):
            pass
