"""The documents say what is so, run where they are code, and are about the project only."""

import re
import subprocess
from pathlib import Path

import pytest

from personalize import Settings, SyncPersonalizer
from personalize.config import from_environment

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```python(?P<mark>[^\n]*)\n(?P<code>.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)(?P<target>[^)#]+)(#[^)]*)?\)")
MACHINE_PATH = re.compile(r"(?<![\w.])/(home|root|Users|work|tmp|mnt|opt)/[\w.-]+")
TEXT = (".py", ".md", ".toml", ".txt", ".json", ".cfg", ".ini", ".yml", ".yaml", ".mako", "")


def tracked() -> list[Path]:
    """Return the files of the repository, new ones included; whatever git ignores is not ours."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    return [path for name in done.stdout.splitlines() if (path := ROOT / name).is_file()]


def test_readme_opens_with_what_was_and_was_not_shown():
    first = README.split("\n\n")[1]
    for words in ("simulated users", "a rule can check", "embedded model", "was built to have the skill", "Not shown"):
        assert words in " ".join(first.split())


def test_readme_has_its_parts():
    for heading in ("Install", "Twelve lines", "The two data paths", "Server", "Security", "Map of the code", "Limits"):
        assert f"\n## {heading}\n" in README
    (code,) = [match["code"] for match in BLOCK.finditer(README) if not match["mark"]]
    assert len([line for line in code.splitlines() if line.strip()]) == 12
    assert "make demo" in README and "make test" in README
    assert "──►" in README, "the idea in one drawing"


def test_readme_says_what_learning_on_means():
    assert "you, the operator, have the users' agreement" in README
    assert re.search(r'"ask"`? \|.*only after a recorded consent', README)


@pytest.fixture()
def run_readme(tmp_path, monkeypatch, capsys):
    """Runs the README's lines in an empty folder; returns what they print."""
    monkeypatch.chdir(tmp_path)

    def run() -> str:
        (code,) = [match["code"] for match in BLOCK.finditer(README) if not match["mark"]]
        exec(compile(code, "README.md", "exec"), {})
        assert (tmp_path / "data").is_dir()
        return capsys.readouterr().out

    return run


@pytest.mark.slow  # loads the embedded model and waits for one update
def test_readme_blocks_run(run_readme):
    printed = run_readme()
    assert re.search(r"\| (applied|skipped_low_signal)\n", printed), printed


def test_readme_blocks_run_without_a_model(run_readme, monkeypatch):
    real = SyncPersonalizer.open

    def echo(model: str, *, home: str) -> SyncPersonalizer:
        return real(settings=Settings(model=model, home=Path(home), backend="echo"))

    monkeypatch.setattr(SyncPersonalizer, "open", echo)
    printed = run_readme()
    assert "| applied\n" in printed and "adapter_version=1" in printed and printed.endswith("[1]\n")


def test_every_top_level_module_is_on_the_map():
    architecture = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    names = {path.stem for path in (ROOT / "personalize").iterdir() if path.suffix == ".py" or path.is_dir()}
    for name in names - {"__init__", "__pycache__", "py"}:
        assert f"`{name}`" in architecture, f"docs/architecture.md does not place `{name}`"


def test_links_lead_somewhere():
    for document in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for match in LINK.finditer(document.read_text(encoding="utf-8")):
            assert (document.parent / match["target"]).exists(), f"{document.name}: {match['target']}"


def test_no_file_names_a_place_on_somebodys_machine():
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in tracked()
        if path.suffix in TEXT and path != Path(__file__).resolve()
        for match in MACHINE_PATH.finditer(path.read_text(encoding="utf-8", errors="ignore"))
    ]
    assert not found, "\n".join(found)


def test_every_environment_variable_is_documented():
    class Everything(dict):
        def __contains__(self, name: object) -> bool:
            return True

        def __missing__(self, name: str) -> str:
            return ""

    for name in from_environment(Everything()):
        assert f"`PERSONALIZE_{name.upper()}`" in README
