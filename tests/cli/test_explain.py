"""``personalize explain``."""

import io

import pytest
from rich.console import Console

from personalize.cli import explain
from personalize.reporting.explanation import END
from personalize.types import TokenSignal

TOKENS = (
    TokenSignal(1, "strong", change=2.0, log_prob=-1.0, advantage=1.0, hindsight_kl=0.5, kl=0.25),
    TokenSignal(2, " weak", change=-0.5, log_prob=-1.0, hindsight_kl=0.5, kl=0.25),
    TokenSignal(3, " still", change=0.01, log_prob=-1.0),
    TokenSignal(4, " thought"),
)


def test_the_newest_update_is_shown_with_its_turn_its_tokens_and_its_replies(taught):
    out = taught.run("explain", "alice")
    (second, _) = taught.json("users", "updates", "alice")
    assert f"update {second['update_id']}: version 2 from version 1" in out
    for words in ("the user asked", "the reply", "the user wrote next", "even shorter", "moved most", END):
        assert words in out
    assert "[v1] You said: shorter, please" in out and "[v2] You said: shorter, please" in out
    for words in ("KL to the parent, nats per reply", "KL to the base", "norm of the change", "reported: signal"):
        assert words in out
    assert "\x1b" not in out, "nobody looks: no colours"


def test_an_update_is_named_by_its_id_or_its_turns(taught):
    (_, first) = taught.json("users", "updates", "alice")
    by_update = taught.json("explain", "alice", "--update", first["update_id"])
    assert by_update == taught.json("explain", "alice", "--update", first["turn_id"])
    assert (by_update["version"], by_update["parent"], by_update["follow_up"]) == (1, None, "shorter, please")
    assert {"token_id", "text", "change", "advantage", "hindsight_kl", "kl"} <= set(by_update["effect"]["tokens"][0])


def test_a_probe_of_ones_own(taught):
    probe = taught.json("explain", "alice", "--probe", "how are you?")["probe"]
    assert probe == {
        "prompt": "how are you?",
        "base": "[base] You said: how are you?",
        "before": "[v1] You said: how are you?",
        "after": "[v2] You said: how are you?",
    }


def test_a_page_is_written(taught, tmp_path):
    file = tmp_path / "page.html"
    out = taught.run("explain", "alice", "--html", str(file))
    assert "page.html" in out
    html = file.read_text(encoding="utf-8")
    assert html.startswith("<!doctype html>") and html.rstrip().endswith("</html>") and "even shorter" in html
    before = file.stat().st_size
    assert taught.json("explain", "alice", "--html", str(file))["version"] == 2  # JSON stays JSON
    assert file.stat().st_size == before


def test_hostile_text_reaches_neither_terminal_nor_page(shell, tmp_path):
    said = "\x1b[2J[bold]hi[/bold]<script>alert(1)</script>"
    shell.talk("eve", said, f"no {said}")
    file = tmp_path / "page.html"
    out = shell.run("explain", "eve", "--html", str(file))
    assert "\x1b" not in out and "[bold]hi[/bold]" in out and "␛[2J" in out
    assert "<script" not in file.read_text(encoding="utf-8")


def test_a_place_that_cannot_be_written_is_named_before_anything_is_computed(taught, tmp_path, fails):
    for place in (tmp_path, tmp_path / "nowhere" / "page.html"):
        line = fails("explain", "alice", "--html", str(place))
        assert "html = " in line and "a file in a folder that exists" in line


def test_errors_are_one_line(shell, taught, fails):
    assert fails("explain", "nobody").startswith("error: not_found: ")
    assert fails("explain", "alice", "--update", "0" * 32).startswith("error: not_found: ")
    assert fails("explain", "alice", "--update", "newest").startswith("error: invalid_parameter: update = 'newest'")
    shell.talk("bob", "hello")
    assert fails("explain", "bob") == "error: not_found: no update of this user has been applied yet"


@pytest.mark.parametrize(("token", "ground"), [(0, explain.UP[2]), (1, explain.DOWN[0]), (2, None), (3, None)])
def test_the_ground_says_way_and_strength(token, ground):
    text = explain.coloured(TOKENS)
    assert text.plain == "strong weak still thought"
    spans = {text.plain[span.start : span.end]: span.style for span in text.spans}
    style = spans.get(TOKENS[token].text)
    assert (style.bgcolor.name if style and style.bgcolor else None) == ground


def test_a_terminal_gets_colours():
    buffer = io.StringIO()
    Console(file=buffer, force_terminal=True, color_system="truecolor", width=80).print(explain.coloured(TOKENS))
    assert "\x1b[30;48;2;63;160;216mstrong" in buffer.getvalue()


def test_the_table_holds_the_strongest_in_the_order_of_the_reply(monkeypatch):
    monkeypatch.setattr(explain, "NUM_STRONGEST", 2)
    buffer = io.StringIO()
    Console(file=buffer, width=120).print(explain.strongest((*TOKENS[1:], TOKENS[0])))
    lines = [line for line in buffer.getvalue().splitlines() if "│" in line]
    assert len(lines) == 2 and "weak" in lines[0] and "strong" in lines[1] and "+2.000" in lines[1]
