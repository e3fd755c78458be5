"""Reading tests without running them."""

import pytest

from scripts.evidence import Evidence, evidence

SOURCE = """
import pytest, torch
from elsewhere import check_tree

def test_assert(): assert 1
def test_nothing(): print("assert")
def test_raises():
    with pytest.raises(ValueError): int("x")
def test_close(): torch.testing.assert_close(1, 1)
def test_imported_check(): check_tree()
def test_through_a_function(): outer()
def outer(): inner()
def inner(): assert 1
def test_through_an_empty_function(): check_nothing()
def check_nothing(): pass
def test_recursive(): loop()
def loop(): loop()
async def test_async(): assert 1
@pytest.mark.skip(reason="x")
def test_skip(): assert 1
@pytest.mark.skipif(True, reason="x")
def test_skipif(): assert 1
def test_skip_inside_a_branch():
    if 1: pytest.skip("x")
    assert 1
def test_skip_first():
    pytest.skip("x")
    assert 1
def test_importorskip():
    pytest.importorskip("x")
    assert 1
class TestGroup:
    def test_method(self): self.check_it()
    def check_it(self): assert 1
@pytest.mark.skip
class TestSkipped:
    def test_method(self): assert 1
"""

CASES = {
    "test_assert": Evidence(True, True),
    "test_nothing": Evidence(True, False),
    "test_raises": Evidence(True, True),
    "test_close": Evidence(True, True),
    "test_imported_check": Evidence(True, True),
    "test_through_a_function": Evidence(True, True),
    "test_through_an_empty_function": Evidence(True, False),
    "test_recursive": Evidence(True, False),
    "test_async": Evidence(True, True),
    "test_skip": Evidence(True, True, "always"),
    "test_skipif": Evidence(True, True, "conditional"),
    "test_skip_inside_a_branch": Evidence(True, True, "conditional"),
    "test_skip_first": Evidence(True, True, "always"),
    "test_importorskip": Evidence(True, True, "conditional"),
    "TestGroup::test_method": Evidence(True, True),
    "TestSkipped::test_method": Evidence(True, True, "always"),
    "test_assert[case-1]": Evidence(True, True),
    "test_absent": Evidence(False),
    "TestGroup": Evidence(False),
}


@pytest.fixture()
def root(tmp_path):
    (tmp_path / "test_a.py").write_text(SOURCE)
    return tmp_path


@pytest.mark.parametrize("name", CASES)
def test_evidence(root, name):
    assert evidence(root, f"test_a.py::{name}") == CASES[name]


def test_a_missing_file_is_no_evidence(root):
    assert evidence(root, "test_b.py::test_assert") == Evidence(False)
    assert evidence(root, "test_a.py") == Evidence(False)


def test_marks_of_the_module_count(root):
    (root / "test_c.py").write_text(
        "import pytest\npytestmark = [pytest.mark.skipif(1, reason='x')]\ndef test_a(): assert 1\n"
    )
    assert evidence(root, "test_c.py::test_a").skip == "conditional"
