"""What the repository holds, and does not."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAX_WEIGHT_VERSIONS = 3
MAX_FILE_BYTES = 10 * 2**20


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("not a git checkout with a history")
    return done.stdout


def test_at_most_three_versions_of_the_weights():
    """Counted over the whole history: weights are what makes a clone heavy."""
    lines = git("log", "--format=", "--raw", "--no-abbrev", "--", "*.safetensors").splitlines()
    versions: dict[str, set[str]] = {}
    for line in lines:
        _, _, _, new, *_, path = line.split()
        if set(new) != {"0"}:
            versions.setdefault(path, set()).add(new)
    assert all(len(blobs) <= MAX_WEIGHT_VERSIONS for blobs in versions.values()), versions


def test_no_large_file_is_tracked():
    names = git("ls-files").splitlines()
    large = {name: size for name in names if (size := (ROOT / name).lstat().st_size) > MAX_FILE_BYTES}
    assert not large


def test_outputs_are_ignored():
    ignored = git("check-ignore", ".venv", "data/x", "runs/x", "demo-output/x", "x/__pycache__/y.pyc").splitlines()
    assert len(ignored) == 5
