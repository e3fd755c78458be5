"""docs/acceptance.md tells the truth: what it calls built exists, asserts something, and is not skipped in silence."""

from pathlib import Path

import pytest

from scripts.acceptance import EVERYWHERE, Row, read
from scripts.evidence import evidence

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "docs" / "acceptance.md"


def faults(row: Row, root: Path = ROOT) -> list[str]:
    """Return what is wrong with a row that says its clause is built."""
    if not row.is_claimed:
        return []
    found = []
    for name in row.tests:
        proof = evidence(root, name)
        if not proof.exists:
            found.append(f"{row.id}: {name} does not exist")
        elif not proof.asserts:
            found.append(f"{row.id}: {name} asserts nothing")
        elif proof.skip == "always" and not row.result.startswith("not run: "):
            found.append(f"{row.id}: {name} is skipped, but the row gives no reason")
        elif proof.skip == "conditional" and row.kind in EVERYWHERE and not row.result.startswith("not run: "):
            found.append(f"{row.id}: {name} may be skipped, but its class is {row.kind}")
    if row.result in ("passed", "failed") and not row.date:
        found.append(f"{row.id}: {row.result}, but when?")
    return found


def test_claims_are_backed():
    assert [fault for row in read(TABLE) for fault in faults(row)] == []


def test_every_part_of_the_issue_has_rows():
    parts = {row.id[:3] for row in read(TABLE)}
    assert parts >= {"1.1", "1.2", "1.3", "1.4", "1.5", "1.6", "1.7", "1.8", "1.M", "1.B", "1.S", "1.F"}


@pytest.fixture()
def project(tmp_path):
    tests = tmp_path / "tests"
    tests.mkdir()
    (tests / "test_a.py").write_text(
        "import pytest\n"
        "def test_good(): assert 1\n"
        "def test_empty(): print(1)\n"
        "@pytest.mark.skip(reason='later')\n"
        "def test_skipped(): assert 1\n"
        "@pytest.mark.skipif(True, reason='no device')\n"
        "def test_device(): assert 1\n"
    )
    return tmp_path


def row(test: str, result: str = "passed", kind: str = "fast", date: str = "2026-01-01") -> Row:
    return Row("1.1a", "a clause", f"`tests/test_a.py::{test}`", kind, result, date)


@pytest.mark.parametrize(
    ("claim", "fault"),
    [
        (row("test_good"), None),
        (row("test_absent"), "does not exist"),
        (row("test_absent", result="missing"), None),
        (row("test_empty"), "asserts nothing"),
        (row("test_skipped"), "gives no reason"),
        (row("test_skipped", result="not run: needs a second machine"), None),
        (row("test_device"), "may be skipped"),
        (row("test_device", kind="gpu"), None),
        (row("test_good", date=""), "but when?"),
    ],
)
def test_each_kind_of_false_claim_is_found(project, claim, fault):
    found = faults(claim, project)
    assert (fault is None) == (found == [])
    assert fault is None or fault in found[0]
