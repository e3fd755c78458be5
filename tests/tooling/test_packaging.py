"""What pyproject.toml and constraints.txt promise, and what a wheel holds."""

import ast
import importlib.util
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> set[str]:
    """Names of the files in a freshly built wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
        return set(archive.namelist())


def test_base_dependencies_are_the_rest_clients():
    assert names(PROJECT["dependencies"]) == {"httpx2"}


def test_extras_bring_what_they_say():
    assert {"torch", "transformers", "peft", "safetensors"} <= names(EXTRAS["local"])
    assert {"sqlalchemy", "alembic"} <= names(EXTRAS["store"])
    assert "personalize[store]" in EXTRAS["local"]
    assert {"fastapi", "uvicorn"} <= names(EXTRAS["server"])
    assert "torch" not in names(EXTRAS["server"]) | names(EXTRAS["cli"]) | names(EXTRAS["store"])
    everything = Requirement(EXTRAS["all"][0]).extras
    assert everything == set(EXTRAS) - {"all", "test", "store"}


def test_constraints_pin_every_direct_dependency_in_range():
    pinned = pins()
    assert pinned["torch"] == "2.13.0"
    for text in [*PROJECT["dependencies"], *(text for extra in EXTRAS.values() for text in extra)]:
        requirement = Requirement(text)
        if requirement.name != PROJECT["name"]:
            assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), text


def test_ranges_reach_down_to_the_oldest_versions_that_are_promised():
    ranges = {r.name: r.specifier for text in EXTRAS["local"] + EXTRAS["store"] if (r := Requirement(text))}
    assert ranges["torch"].contains("2.11.0") and not ranges["torch"].contains("2.10.0")
    assert ranges["transformers"].contains("5.17.0") and not ranges["transformers"].contains("5.16.0")
    assert ranges["sqlalchemy"].contains("2.0.30")


def test_every_library_that_is_imported_is_declared():
    """Directly, or (second table) as a part of what is declared."""
    comes_with = {"starlette": "fastapi", "tokenizers": "transformers", "huggingface_hub": "transformers"}
    comes_with["triton"] = "torch"  # with its builds for CUDA; nothing imports it elsewhere
    declared = {
        "personalize": ["local", "cli", "plot", "server"],
        "adapters_store": ["store"],
        "server": ["server", "cli"],
    }
    for package, extras in declared.items():
        allowed = names(PROJECT["dependencies"]) | {name for extra in extras for name in names(EXTRAS[extra])}
        allowed |= names(EXTRAS["store"])
        for name in third_party(ROOT / package):
            assert comes_with.get(name, name).replace("_", "-") in allowed, f"{package} imports {name}"


def third_party(folder: Path) -> set[str]:
    """Return the top-level names of libraries that are neither ours nor Python's."""
    found: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                found.add((node.module or "").split(".")[0])
    return found - set(sys.stdlib_module_names) - {"personalize", "adapters_store", "server"}


def test_wheel_holds_the_three_typed_packages(wheel):
    tops = {name.split("/")[0] for name in wheel if ".dist-info" not in name}
    assert tops == {"personalize", "adapters_store", "server"}
    for package in tops:
        assert f"{package}/py.typed" in wheel


def test_wheel_holds_package_data(wheel):
    """Everything that is not code but is read at run time: the model, the world's facts, the migrations."""
    for folder in ("personalize/pocket/model", "personalize/world", "adapters_store"):
        wanted = {
            path.relative_to(ROOT).as_posix()
            for path in (ROOT / folder).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        assert wanted, folder
        assert wanted <= wheel


def test_entry_points_lead_to_callables():
    groups = {"personalize.cli:main", *PROJECT["entry-points"]["personalize.commands"].values()}
    assert PROJECT["scripts"] == {"personalize": "personalize.cli:main"}
    for target in groups:
        module, _, function = target.partition(":")
        assert importlib.util.find_spec(module), module
        assert callable(getattr(importlib.import_module(module), function))
