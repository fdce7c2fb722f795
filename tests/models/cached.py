# SPDX-License-Identifier: Apache-2.0
"""What the tests of the load cache share."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest
from compare import HERE

import trine
from trine import load_cache

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLES = HERE / "examples"
TEXT = "A great film."


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, which takes models of any size and a disk of any size."""
    monkeypatch.setenv("TRINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TRINE_CACHE_SIZE", "1GB")
    monkeypatch.setattr(load_cache, "SMALLEST", 0)
    monkeypatch.setattr(load_cache, "RESERVE", 0)
    return tmp_path / "cache" / "loads"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A classifier's folder that may be changed."""
    shutil.copytree(EXAMPLES / "classify", tmp_path / "model")
    return tmp_path / "model"


def load(source: Path, *, dtype: str = "float32", **options: Any) -> tuple[str, Any]:
    """What the cache did, and what the model gives."""
    with trine.load(source, device="cpu", dtype=dtype, **options) as model:
        note = model.info().get("cache", "")
        return note.partition(" /")[0], model.predict(TEXT)


def result_of(folder: Path) -> Any:
    """What it gives without the cache."""
    return load(folder, cache=False)[1]


def names(place: Path) -> list[str]:
    """The kinds of files in the cache."""
    return sorted(path.suffix for path in place.iterdir())
