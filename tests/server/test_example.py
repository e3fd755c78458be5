import runpy
from pathlib import Path

from tests.server.serving import Socket

EXAMPLE = Path(__file__).parents[2] / "examples" / "call_the_server.py"


def test_the_example_runs_against_a_server(socket: Socket, monkeypatch, capsys):
    monkeypatch.setenv("PERSONALIZE_BASE_URL", socket.url)
    monkeypatch.setenv("PERSONALIZE_API_KEY", socket.service.app_key)
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    printed = capsys.readouterr().out
    assert "learning: queued | version: base" in printed
    assert "in the end: applied" in printed
    assert "a new chat: [v1] You said: Tell me about rivers." in printed
