"""What a test's source says about it, without running it: whether it exists, asserts something, is skipped."""

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path

Function = ast.FunctionDef | ast.AsyncFunctionDef
CHECKING_NAMES = ("assert", "check", "expect", "verify")
CHECKING_CALLS = ("raises", "warns", "fail")
SKIPS = {"skip": "always", "skipif": "conditional", "importorskip": "conditional"}


@dataclass(frozen=True, slots=True)
class Evidence:
    """Attributes:
    exists: the file defines that test.
    asserts: the test, or a function of the same file that it uses, checks something.
    skip: ``always``, ``conditional`` or None.
    """

    exists: bool
    asserts: bool = False
    skip: str | None = None


def evidence(root: Path, node_id: str) -> Evidence:
    """Return what the source says about ``tests/file.py::[Class::]test``; a parameter in brackets is ignored."""
    name, *parts = node_id.partition("[")[0].split("::")
    path = root / name
    if not parts or not path.is_file():
        return Evidence(exists=False)
    module = _parse(path, path.stat().st_mtime_ns)
    holders, function = _find(module, parts)
    if function is None:
        return Evidence(exists=False)
    marks = [*_module_marks(module), *(mark for holder in holders for mark in holder.decorator_list)]
    return Evidence(True, _checks(function, _functions(module)), _skip(function, marks))


@cache
def _parse(path: Path, _mtime_ns: int) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def _find(module: ast.Module, parts: list[str]) -> tuple[list[ast.ClassDef | Function], Function | None]:
    body: list[ast.stmt] = module.body
    holders: list[ast.ClassDef | Function] = []
    for name in parts:
        found = [n for n in body if isinstance(n, ast.ClassDef | Function) and n.name == name]
        if not found:
            return holders, None
        holders.append(found[-1])
        body = found[-1].body
    last = holders[-1]
    return holders, None if isinstance(last, ast.ClassDef) else last


def _functions(module: ast.Module) -> dict[str, Function]:
    return {node.name: node for node in ast.walk(module) if isinstance(node, Function)}


def _checks(function: Function, others: dict[str, Function]) -> bool:
    """Whether the function, its fixtures or what it calls in this file holds an assert or a checking call."""
    seen: set[str] = set()
    waiting = [function]
    while waiting:
        current = waiting.pop()
        seen.add(current.name)
        for node in ast.walk(current):
            if isinstance(node, ast.Assert):
                return True
            name = _called(node)
            if (name.startswith(CHECKING_NAMES) and name not in others) or name in CHECKING_CALLS:
                return True
            if name in others and name not in seen:
                waiting.append(others[name])
    return False


def _called(node: ast.AST) -> str:
    if not isinstance(node, ast.Call):
        return ""
    return _last_name(node.func)


def _last_name(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _module_marks(module: ast.Module) -> list[ast.expr]:
    for node in module.body:
        if isinstance(node, ast.Assign) and any(_last_name(target) == "pytestmark" for target in node.targets):
            return list(node.value.elts) if isinstance(node.value, ast.List | ast.Tuple) else [node.value]
    return []


def _skip(function: Function, marks: list[ast.expr]) -> str | None:
    for mark in marks:
        name = _last_name(mark.func if isinstance(mark, ast.Call) else mark)
        if name in SKIPS:
            return SKIPS[name]
    if any(isinstance(s, ast.Expr) and _called(s.value) == "skip" for s in function.body):
        return "always"
    inner = [name for node in ast.walk(function) if (name := _called(node)) in SKIPS]
    return "conditional" if inner else None
