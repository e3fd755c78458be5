"""The examples run as they stand."""

import re
import runpy
import sys
import zipfile
from pathlib import Path

import pytest

from tests.server.serving import listening

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"


def run(name: str, *arguments: str) -> None:
    """Run an example as ``python examples/<name> …`` would, in this process: torch is loaded once."""
    before = sys.argv
    sys.argv = [name, *arguments]
    try:
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    finally:
        sys.argv = before


@pytest.mark.slow  # opens the embedded model and waits for two updates
def test_embed(tmp_path, capsys):
    run("embed.py", str(tmp_path / "home"))
    out = capsys.readouterr().out
    assert out.count("base model:") == 2
    assert "ada said" in out and "ben said" in out


def test_call_the_server(tmp_path, capsys, monkeypatch):
    with listening(tmp_path) as socket:
        monkeypatch.setenv("PERSONALIZE_BASE_URL", socket.url)
        monkeypatch.setenv("PERSONALIZE_API_KEY", socket.service.app_key)
        run("call_the_server.py")
    out = capsys.readouterr().out
    assert "in the end: applied" in out
    assert re.search(r"version: base\n.*a new chat: \[v1\]", out, re.DOTALL), out


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    """An export as the store writes it: two versions of one user, made with PEFT itself."""
    torch = pytest.importorskip("torch")
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from personalize.pocket import path

    folder = tmp_path_factory.mktemp("peft")
    target = folder / "alice.zip"
    with zipfile.ZipFile(target, "w") as packed:
        for number in (1, 2):
            torch.manual_seed(number)
            config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
            model = get_peft_model(AutoModelForCausalLM.from_pretrained(path()), config)
            for key, weight in model.named_parameters():
                if "lora_B" in key:
                    weight.data.mul_(20)  # the embedded model is sure of what it says
            name = f"u_{'0' * 32}@{number}-{'a' * 16}"
            model.save_pretrained(str(folder / name))
            for file in sorted((folder / name).iterdir()):
                packed.write(file, f"versions/{name}/{file.name}")
    return target


@pytest.mark.slow  # loads the embedded model and generates greedily, twice
def test_open_in_peft(archive, capsys):
    run("open_in_peft.py", str(archive))
    out = capsys.readouterr().out
    base, _, newest = out.partition(f"u_{'0' * 32}@2-")
    assert newest, out
    assert base.split(":\n")[1].strip() != newest.split(":\n")[1].strip(), "random adapters change the answer"


def test_open_in_peft_names_what_there_is(archive, capsys):
    with pytest.raises(SystemExit, match=r"holds the versions \[1, 2\], not 7"):
        run("open_in_peft.py", str(archive), "7")


def test_examples_stay_short():
    for path in EXAMPLES.glob("*.py"):
        source = path.read_text(encoding="utf-8")
        assert len(source.splitlines()) <= 80, path.name
        assert source.startswith('"""'), path.name
