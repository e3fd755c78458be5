"""The plain values of all borders, taken together."""

import dataclasses
import inspect
import pkgutil
from importlib import import_module

import pytest

from personalize import types

MODULES = [import_module(found.name) for found in pkgutil.iter_modules(types.__path__, f"{types.__name__}.")]
VALUES = [value for name in types.__all__ if dataclasses.is_dataclass(value := getattr(types, name))]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_what_a_module_defines_is_public_here_or_private_there(module):
    defined = {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    }
    assert defined, "a module without a value"
    assert {name: getattr(types, name, None) for name in defined} == defined
    assert set(defined) <= set(types.__all__)


def test_all_names_are_there_once():
    assert all(hasattr(types, name) for name in types.__all__)
    assert len(set(types.__all__)) == len(types.__all__)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: value.__name__)
def test_a_value_is_frozen_compares_by_value_and_says_what_it_is(value):
    assert value.__dataclass_params__.frozen and value.__dataclass_params__.eq
    assert "__slots__" in vars(value)
    assert not (inspect.getdoc(value) or "").startswith(f"{value.__name__}("), "that is the text a dataclass makes up"
