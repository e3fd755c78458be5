"""Alarms for code that has grown past what a reader can hold."""

import ast
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("personalize", "adapters_store", "server")
MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 40
FORBIDDEN_WORDS = ("manager", "handler", "helper", "utils", "processor", "wrapper")
CATALOGUES = {
    "personalize/service/personalizer.py",  # the SDK's whole surface in one place; most bodies are one line
    "personalize/world/wordings.py",
    "personalize/world/phrases.py",
    "personalize/world/replies.py",
}
"""Files that list things and hold almost no code: long on purpose."""


def sources() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def functions(path: Path) -> list[tuple[str, int]]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [(node.name, _lines(node)) for node in found]


def _lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function from its ``def`` on, without its docstring."""
    start = node.lineno
    if ast.get_docstring(node) is not None:
        start += (node.body[0].end_lineno or 0) - node.body[0].lineno + 1
    return (node.end_lineno or node.lineno) - start + 1


@pytest.mark.parametrize("package", PACKAGES)
def test_files_stay_readable(package):
    long = {
        name: count
        for path in sources()
        if (name := path.relative_to(ROOT).as_posix()).startswith(package) and name not in CATALOGUES
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > MAX_FILE_LINES
    }
    assert not long, f"over {MAX_FILE_LINES} lines, look for the second noun: {long}"


@pytest.mark.parametrize("package", PACKAGES)
def test_functions_stay_small(package):
    long = {
        f"{path.relative_to(ROOT).as_posix()}:{name}": count
        for path in sources()
        if path.relative_to(ROOT).parts[0] == package and "migrations" not in path.parts  # tables, column by column
        for name, count in functions(path)
        if count > MAX_FUNCTION_LINES
    }
    assert not long, f"over {MAX_FUNCTION_LINES} lines: {long}"


def test_the_median_function_is_small():
    counts = [count for path in sources() for _, count in functions(path)]
    assert median(counts) <= 12


def test_modules_are_named_by_nouns_of_the_field():
    found = [path.name for path in sources() if any(word in path.stem.lower() for word in FORBIDDEN_WORDS)]
    assert not found
