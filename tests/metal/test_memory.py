# SPDX-License-Identifier: Apache-2.0
"""Weights are read from the file's own pages where they lie so that the GPU can."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import emulated
import numpy as np

import trine

if TYPE_CHECKING:
    import pytest

FOLDER = Path(__file__).resolve().parents[1] / "golden" / "examples" / "chat"


def with_data_at(folder: Path, remainder: int) -> Path:
    """Copy the model with its tensors beginning at 64 n + ``remainder`` bytes of the file."""
    shutil.copytree(FOLDER, folder)
    path = folder / "model.safetensors"
    stored = path.read_bytes()
    size = int.from_bytes(stored[:8], "little")
    header = stored[8 : 8 + size].rstrip(b" ")
    header += b" " * ((remainder - 8 - len(header)) % 64)
    path.write_bytes(len(header).to_bytes(8, "little") + header + stored[8 + size :])
    return folder


def test_aligned_weights_are_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRINE_PLUGIN_PATH", str(emulated.plugin("metal")))
    ids = np.arange(5, 25).reshape(2, 10)
    outputs, infos = [], []
    for remainder in (0, 8):
        folder = with_data_at(tmp_path / str(remainder), remainder)
        with trine.load(folder, device="metal", dtype="float16") as model:
            infos.append(model.info())
            outputs.append(model.forward(ids))
    aligned, other = infos
    assert aligned["bytes_mapped"] >= aligned["weight_bytes"]
    # What is merged into one product of several tensors is a copy in any case.
    assert aligned["bytes_allocated"] < 0.4 * aligned["weight_bytes"]
    assert other["bytes_allocated"] > aligned["bytes_allocated"] + 0.3 * aligned["weight_bytes"]
    for name, values in outputs[0].items():
        assert np.array_equal(values, outputs[1][name]), name
