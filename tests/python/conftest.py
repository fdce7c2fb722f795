# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the tests of the Python side."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:  # for fakes.py
    sys.path.insert(0, str(HERE))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a tokenizer and nothing else."""
    from fakes import write_tokenizer

    return write_tokenizer(tmp_path / "model")
