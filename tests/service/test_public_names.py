"""What ``personalize`` exports, and what importing it costs."""

import subprocess
import sys

import pytest

import personalize


def test_the_public_names_are_pinned():
    assert len(personalize.__all__) <= 25
    assert sorted(personalize.__all__) == personalize.__all__ == dir(personalize)
    assert set(personalize.__all__) == set(personalize._HOME)
    for name in personalize.__all__:
        assert getattr(personalize, name).__module__.startswith("personalize.")


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nonsense"):
        personalize.nonsense  # noqa: B018


def test_importing_it_loads_nothing_but_itself():
    code = "import sys, personalize; sys.exit(any(n.startswith('personalize.') for n in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
