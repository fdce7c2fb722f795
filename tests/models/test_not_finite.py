# SPDX-License-Identifier: Apache-2.0
"""A result that is no number is an error that names the weight, never a silent NaN."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from compare import HERE
from safetensors.numpy import load_file, save_file

import trine

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLES = HERE / "examples"
DTYPES = ("float32", "bfloat16", "int8", "int4")
INPUTS: dict[str, Any] = {
    "ask": {"question": "Who plays the harp?", "context": "Ada Lovelace plays the harp."},
    "choose": ("The team", ["was long.", "was funny."]),
    "classify": "A great film.",
    "fill": "Ada plays the <mask>.",
    "ner": "Ada Lovelace lived in London.",
    "tag": "Ada Lovelace lives in Rome.",
    "chat": "hello",
}


def spoil(example: str, value: float, folder: Path) -> tuple[Path, str]:
    """Copy an example with one element of the first norm replaced; also what it is called."""
    shutil.copytree(EXAMPLES / example, folder)
    tensors = load_file(folder / "model.safetensors")
    name = next(n for n in tensors if "norm" in n.lower() and n.endswith("weight"))
    tensors[name].reshape(-1)[1] = value
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder, name


@pytest.mark.parametrize("example", INPUTS)
@pytest.mark.parametrize(("value", "called"), [(np.nan, "a NaN"), (np.inf, "an infinity")])
def test_every_task_names_the_weight(
    tmp_path: Path, example: str, value: float, called: str
) -> None:
    folder, name = spoil(example, value, tmp_path / example)
    for dtype in DTYPES:
        with trine.load(folder, dtype=dtype, device="cpu") as model:
            said = rf'model\.safetensors: tensor "{name}" holds {called}'
            with pytest.raises(trine.ModelError, match=said):
                model.predict([INPUTS[example]])


def test_forward_and_compiled_files_do_too(tmp_path: Path) -> None:
    folder, name = spoil("classify", np.nan, tmp_path / "classify")
    with trine.load(folder, dtype="float32", device="cpu") as model:
        with pytest.raises(trine.ModelError, match=f'output "logits" is no number.*"{name}"'):
            model.forward([[0, 7, 2]])
        model.save(tmp_path / "m.trine")
    said = r'm\.trine: tensor ".*" holds a NaN'
    with trine.load(tmp_path / "m.trine") as model, pytest.raises(trine.ModelError, match=said):
        model.forward([[0, 7, 2]])  # the norm has gone into a linear


def test_sums_that_overflow_are_told_from_weights(tmp_path: Path) -> None:
    folder = tmp_path / "classify"
    shutil.copytree(EXAMPLES / "classify", folder)
    tensors = load_file(folder / "model.safetensors")
    name = "classifier.out_proj.weight"
    tensors[name] = np.full(tensors[name].shape, 3e38, np.float32)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    model, said = trine.load(folder, dtype="float32"), "every weight is finite, so sums overflow"
    with model, pytest.raises(trine.ModelError, match=said):
        model.predict(["A great film."])
