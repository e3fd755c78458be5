"""The borders between packages, checked on the import graph and at run time."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIGHT = [
    "personalize",
    "personalize.types",
    "adapters_store",
    "server.app",
    "personalize.backends.echo",
    "personalize.cli",
]
HEAVY = ("torch", "transformers", "peft", "safetensors")


def test_import_contracts_hold():
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-logo", "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("module", LIGHT)
def test_light_imports_load_no_torch(module):
    program = f"import sys, {module}; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, env=_environment())
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_opening_the_echo_backend_loads_no_torch(tmp_path):
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from personalize import SyncPersonalizer, Settings\n"
        f"with SyncPersonalizer.open(settings=Settings(backend='echo', home=Path({str(tmp_path)!r}))) as app:\n"
        "    app.chat('alice', 'hello')\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, env=_environment())
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "False"


def test_only_rendering_applies_chat_templates():
    """Any other road from messages to token ids would let serving and learning disagree.

    Recipes are left out: they train the model whose template it is, and have a test of their own that both agree.
    """
    found = {path for path in _sources("personalize", "server") if "apply_chat_template" in _calls(path)}
    outside = {path for path in found if not path.is_relative_to(ROOT / "personalize" / "rendering")}
    assert found - outside, "the search itself must find the one place"
    assert {path.relative_to(ROOT).parts[1] for path in outside} <= {"recipes"}


def test_environment_is_read_in_config_only():
    readers = {path.relative_to(ROOT).as_posix() for path in _sources("personalize") if _reads_environment(path)}
    assert readers <= {"personalize/config.py"}


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("COV_", "PYTEST_"))}


def _sources(*packages: str) -> list[Path]:
    return [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]


def _calls(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def _reads_environment(path: Path) -> bool:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return any(
        isinstance(node, ast.Attribute)
        and node.attr in ("environ", "getenv")
        and isinstance(node.value, ast.Name)
        and node.value.id == "os"
        for node in ast.walk(tree)
    )
