"""``personalize chat``, fed through a pipe."""

import io
import re
from types import SimpleNamespace
from unittest.mock import patch

import pytest
from rich.console import Console

from personalize.cli import chat
from personalize.errors import Conflict, InvalidRequest
from personalize.service import SyncPersonalizer
from personalize.types import Message, Outcome, Reply, Usage


def test_a_chat_shows_reply_outcome_and_version(shell):
    out = shell.talk("alice", "hello", "shorter, please", "thanks")
    turns = re.findall(r"You said: (.+?) +│\n.*?─ (\S+) · served by (.+?) ─", out, re.DOTALL)
    assert turns == [
        ("hello", "skipped_first_message", "the base model"),
        ("shorter, please", "applied", "the base model"),
        ("thanks", "applied", "version 1"),
    ]


def test_quit_ends_and_a_new_chat_forgets_the_old_one(shell):
    out = shell.talk("alice", "hello", "/new", "again", "/quit", "never said")
    assert out.count("skipped_first_message") == 2
    assert "never said" not in out


def test_undo_takes_back_the_last_update(shell):
    out = shell.talk("alice", "hello", "shorter", "/undo", "and now?")
    assert "head is the base model" in out
    assert "and now?" in out.split("head is the base model")[1]
    assert "[base]" in out.split("head is the base model")[1]


def test_undo_without_a_version_is_reported_and_the_chat_goes_on(shell):
    out = shell.talk("nobody", "/undo", "hello")
    assert "You said: hello" in out


def test_unknown_commands_and_empty_lines_send_nothing(shell):
    out = shell.talk("alice", "", "   ", "/what")
    assert "You said" not in out
    assert out.count("/new starts another chat") == 2


def test_a_refused_message_leaves_the_conversation_as_it_was(shell):
    out = shell.talk("alice", "hello", "x" * 200_000, "shorter")
    assert "invalid_parameter" in out
    assert "applied" in out, "the message after the refused one still follows the first reply"


def test_learning_can_be_switched_off(shell):
    out = shell.run("chat", "alice", "--no-learn", typed="hello\nshorter\n")
    assert "skipped_learning_off" in out
    assert shell.json("versions", "list", "alice") == []


def test_a_temporary_chat_is_not_kept(shell):
    out = shell.run("chat", "alice", "--temporary", typed="hello\nshorter\n")
    assert out.count("skipped_temporary") == 2
    assert shell.json("users", "list") == []


def test_an_invalid_sampling_value_is_one_line(fails):
    assert "temperature = 3.0 is not allowed; allowed: 0 to 2" in fails("chat", "alice", "--temperature", "3")


def test_on_a_terminal_the_panel_is_live(shell, monkeypatch):
    screen = Console(file=io.StringIO(), force_terminal=True, width=100)
    with patch.object(chat, "console", return_value=screen):
        shell.talk("alice", "hello")
    assert "You said: hello" in screen.file.getvalue()  # type: ignore[attr-defined]


def test_text_is_never_markup():
    reply = Reply("[red]hi[/red]", "stop", "r", "t", 3, Outcome.APPLIED, Usage(1, 1))
    screen = Console(file=io.StringIO(), width=100)
    screen.print(chat.panel("[b]bob[/b]", Message("user", "[/]").content, reply.text, "applied", reply))
    shown = screen.file.getvalue()  # type: ignore[attr-defined]
    for text in ("[b]bob[/b]", "[/]", "[red]hi[/red]", "applied · served by version 3"):
        assert text in shown


@pytest.mark.parametrize(("method", "line"), [("undo", "/undo"), ("stream", "hello")])
def test_an_error_is_never_markup(shell, monkeypatch, method, line):
    def refuse(*arguments):
        raise Conflict("[/INST] [b]bold[/b]")

    monkeypatch.setattr(SyncPersonalizer, method, refuse)
    assert "conflict: [/INST] [b]bold[/b]" in shell.talk("alice", line)


def test_a_pipe_that_carries_no_text_ends_with_one_line(fails):
    assert fails("chat", "alice", typed=b"caf\xe9\n") == (
        "error: invalid_request: what is typed or piped in is not utf-8 text"
    )


def test_bytes_that_python_lets_pass_are_no_text_either():
    screen = SimpleNamespace(input=lambda prompt: "caf\udce9")
    with pytest.raises(InvalidRequest, match="not utf-8 text"):
        next(chat._lines(screen))
