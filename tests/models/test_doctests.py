# SPDX-License-Identifier: Apache-2.0
"""The examples in docstrings of the package print what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import trine

ROOT = Path(__file__).resolve().parents[2]


def modules() -> list[str]:
    """Every module of the package, but the one that runs the command line when imported."""
    found = pkgutil.walk_packages(trine.__path__, "trine.")
    return ["trine", *(m.name for m in found if m.name != "trine.__main__")]


def examples() -> list[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    tests = [t for name in modules() for t in finder.find(importlib.import_module(name), name)]
    return [test for test in tests if test.examples]


@pytest.mark.parametrize("test", examples(), ids=lambda test: test.name)
def test_example(test: doctest.DocTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert not any(example.options.get(doctest.SKIP) for example in test.examples)
    told: list[str] = []
    failed, tried = doctest.DocTestRunner().run(test, out=told.append)
    assert tried > 0
    assert failed == 0, "".join(told)


def test_every_public_class_and_function_has_one() -> None:
    having = {test.name.rpartition(".")[2] for test in examples()}
    errors = {"DeviceError", "Error", "InputError", "ModelError"}
    assert set(trine.__all__) - having - errors == {"__version__"}
