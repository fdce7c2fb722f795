# SPDX-License-Identifier: Apache-2.0
"""The package as such: what importing it costs, and what it offers."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import trine

if TYPE_CHECKING:
    from pathlib import Path


def run(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_importing_it_imports_nothing_else() -> None:
    heavy = ["numpy", "tokenizers", "huggingface_hub", "argparse", "json", "trine._core"]
    assert run(f"import sys, trine; print([m for m in {heavy} if m in sys.modules])") == "[]"


def test_the_command_line_parses_without_numpy() -> None:
    heavy = ["numpy", "fastapi", "uvicorn", "trine.server"]
    code = "import sys, trine.cli as c; c.make_parser(); "
    assert run(f"{code}print([m for m in {heavy} if m in sys.modules])") == "[]"


def test_a_demo_that_is_unpacked_needs_no_archive_tools() -> None:
    heavy = ["zipfile", "tempfile", "shutil", "hashlib", "importlib.metadata"]
    code = f"import sys, trine.demo; print([m for m in {heavy} if m in sys.modules])"
    assert run(code) == "[]"


@pytest.mark.parametrize("name", trine.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(trine, name) is not None
    assert name in dir(trine)


def test_an_unknown_name() -> None:
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = trine.no_such_thing


def test_the_folder_of_the_c_interface(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trine, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(trine.Error, match=r"not installed: there is no .*cpp"):
        trine.cmake_prefix()
    (tmp_path / "cpp").mkdir()
    assert trine.cmake_prefix() == str(tmp_path / "cpp")


def test_errors() -> None:
    assert issubclass(trine.InputError, ValueError)
    for error in (trine.InputError, trine.ModelError, trine.DeviceError):
        assert issubclass(error, trine.Error)
