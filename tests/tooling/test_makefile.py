"""The Makefile's promises, read from what make would do."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TARGETS = ("demo", "test", "check", "accept", "bench", "bench-gpu", "study", "figures")


@pytest.fixture()
def bare(tmp_path):
    """A folder with the Makefile and the package lists, but without an environment."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def plan(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["make", "-n", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_builds_the_environment_first(bare, target):
    steps = plan(bare, target)
    assert re.search(r"-m venv \.venv", steps)
    assert steps.index("-m venv") < steps.index("torch==2.13.0") < steps.index("--constraint constraints.txt")
    assert len(steps.splitlines()) > 4, "and then the target's own command"


@pytest.mark.parametrize("target", TARGETS)
def test_a_ready_environment_is_not_built_again(bare, target):
    (bare / ".venv" / "bin").mkdir(parents=True)
    (bare / ".venv" / ".ready").touch()
    assert "pip install" not in plan(bare, target)


def test_torch_is_installed_before_and_apart_from_the_rest(bare):
    installs = [line for line in plan(bare, "venv").splitlines() if "pip install" in line]
    assert len(installs) == 2
    assert installs[0].endswith("torch==2.13.0")


def test_model_and_device_reach_the_study(bare):
    assert "--model Qwen/Qwen3-0.6B --device cuda" in plan(bare, "study", "MODEL=Qwen/Qwen3-0.6B", "DEVICE=cuda")


def test_an_interpreter_is_found_and_a_missing_one_is_named(bare):
    done = subprocess.run(["make", "venv", "PYTHON="], cwd=bare, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "Python 3.11 or newer is needed" in done.stdout + done.stderr


def test_no_target_asks_for_root():
    assert "sudo" not in (ROOT / "Makefile").read_text(encoding="utf-8")
