# SPDX-License-Identifier: Apache-2.0
"""The same weights in another file or precision that holds them exactly give the same bits."""

from __future__ import annotations

import shutil
import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest
from compare import HERE
from safetensors.numpy import load_file, save_file
from torch_files import (
    archive,
    dict_of,
    keys,
    legacy,
    number,
    numbers,
    plain,
    storage,
    tensor,
    text,
)

import trine

if TYPE_CHECKING:
    from pathlib import Path

MODEL = HERE / "heads" / "model"
IDS = np.array([[0, 5, 9, 7, 2], [0, 11, 2, 1, 1]])
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


def forward(folder: Path) -> dict[str, np.ndarray]:
    model = trine.load(folder, dtype="float32", device="cpu")
    return dict(model.forward(input_ids=IDS, attention_mask=MASK))


def write_safetensors(weights: dict[str, np.ndarray], folder: Path) -> None:
    save_file(weights, folder / "model.safetensors")


def pickle_of(weights: dict[str, np.ndarray]) -> bytes:
    """Tensors that lie as the arrays do, row by row or column by column."""
    pairs = []
    for i, (name, array) in enumerate(weights.items()):
        kind = {4: "FloatStorage", 8: "DoubleStorage"}[array.itemsize]
        strides = numbers(*(stride // array.itemsize for stride in array.strides))
        where = storage(str(i), array.size, kind)
        pairs.append(text(name) + tensor(numbers(*array.shape), strides, number(0), where))
    return plain(dict_of(*pairs))


def bytes_of(weights: dict[str, np.ndarray]) -> dict[str, bytes]:
    return {str(i): array.tobytes("A") for i, array in enumerate(weights.values())}


def write_zip(weights: dict[str, np.ndarray], folder: Path) -> None:
    entries = {f"data/{key}": content for key, content in bytes_of(weights).items()}
    (folder / "pytorch_model.bin").write_bytes(archive(pickle_of(weights), None, **entries))


def write_legacy(weights: dict[str, np.ndarray], folder: Path) -> None:
    counted = zip(weights.values(), bytes_of(weights).values(), strict=True)
    storages = b"".join(struct.pack("<q", array.size) + content for array, content in counted)
    content = legacy(pickle_of(weights), keys(*bytes_of(weights)), storages)
    (folder / "pytorch_model.bin").write_bytes(content)


@pytest.mark.parametrize(
    ("write", "order"),
    [
        (write_safetensors, "C"),  # the format knows no other
        (write_zip, "C"),
        (write_zip, "F"),
        (write_legacy, "C"),
        (write_legacy, "F"),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_same_bits(write, dtype, order, tmp_path: Path) -> None:
    weights = {
        name: np.array(array, dtype, order=order)
        for name, array in load_file(MODEL / "model.safetensors").items()
    }
    folder = shutil.copytree(MODEL, tmp_path / "model")
    (folder / "model.safetensors").unlink()
    write(weights, folder)
    expected, found = forward(MODEL), forward(folder)
    assert expected.keys() == found.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)
