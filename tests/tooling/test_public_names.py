"""The public names, pinned: adding one is a decision, not an accident."""

import importlib
import re

import pytest

PERSONALIZE = {
    "Personalizer",
    "SyncPersonalizer",
    "Settings",
}
LIMITS = {"personalize": 25, "adapters_store": 10}


@pytest.mark.parametrize(("package", "limit"), LIMITS.items())
def test_a_package_has_few_public_names(package, limit):
    module = importlib.import_module(package)
    names = module.__all__
    assert 0 < len(names) <= limit
    assert len(set(names)) == len(names)
    assert all(hasattr(module, name) for name in names)


def test_personalize_exports_what_the_readme_uses():
    assert set(importlib.import_module("personalize").__all__) >= PERSONALIZE


def test_adapters_store_exports_the_store():
    assert set(importlib.import_module("adapters_store").__all__) >= {"Store", "LocalBlobs", "MemoryBlobs"}


def test_personalize_says_its_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+|source", importlib.import_module("personalize").__version__)
