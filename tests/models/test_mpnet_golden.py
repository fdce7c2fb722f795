# SPDX-License-Identifier: Apache-2.0
"""Tiny random MPNet checkpoints of every head against transformers' outputs (no torch needed)."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
from compare import HERE, assert_outputs

import trine

if TYPE_CHECKING:
    from pathlib import Path

HEADS = HERE / "heads"
NAMES = sorted(path.name for path in HEADS.iterdir() if path.is_dir())
# Float32 against float32: sums of a few hundred products in another order, over 2 to 3 layers.
TOLERANCE = 2e-5
CLASSES = {
    "choose": "Chooser",
    "classify": "Classifier",
    "classify-multi": "Classifier",
    "classify-regression": "Classifier",
    "masked-lm": "Filler",
    "model": "Embedder",
    "question": "Reader",
    "tag": "Tagger",
}


def read_case(name: str) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Input ids, mask and the reference's outputs."""
    arrays = dict(np.load(HEADS / name / "expected.npz"))
    ids = arrays.pop("input_ids").astype(np.int64)
    return ids, arrays.pop("attention_mask").astype(np.int64), arrays


def load(folder: Path) -> trine.Task:
    return trine.load(folder, dtype="float32", device="cpu")


def test_every_head_has_a_case() -> None:
    assert sorted(CLASSES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_outputs(name: str) -> None:
    ids, mask, expected = read_case(name)
    with load(HEADS / name) as model:
        assert type(model).__name__ == CLASSES[name]
        got = model.forward(ids, mask)
    assert_outputs(got, expected, TOLERANCE, name)


@pytest.mark.parametrize("name", NAMES)
def test_each_sequence_alone(name: str) -> None:
    """A sequence gives the same bits alone as in its batch, and without padding."""
    ids, mask, _ = read_case(name)
    with load(HEADS / name) as model:
        together = model.forward(ids, mask)
        for row in range(len(ids)):
            alone = model.forward(ids[row : row + 1], mask[row : row + 1])
            for output, value in alone.items():
                np.testing.assert_array_equal(value, together[output][row : row + 1])


@pytest.mark.parametrize("name", NAMES)
def test_one_output(name: str) -> None:
    ids, mask, expected = read_case(name)
    with load(HEADS / name) as model:
        for output, value in expected.items():
            got = model.forward(ids, mask, outputs=[output])
            assert set(got) == {output}
            assert_outputs(got, {output: value}, TOLERANCE, name)


def test_mask_left_out_means_no_padding() -> None:
    ids, mask, expected = read_case("model")
    longest = int(mask.sum(1).argmax())
    with load(HEADS / "model") as model:
        got = model.forward(ids[longest : longest + 1])
    wanted = {name: value[longest : longest + 1] for name, value in expected.items()}
    assert_outputs(got, wanted, TOLERANCE)


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint8])
def test_integer_types(dtype: type) -> None:
    ids, mask, expected = read_case("model")
    with load(HEADS / "model") as model:
        got = model.forward(ids.astype(dtype), mask.astype(bool))
        assert_outputs(got, expected, TOLERANCE)
        strided = np.asfortranarray(ids.astype(dtype))
        assert_outputs(model.forward(strided, np.asfortranarray(mask)), expected, TOLERANCE)


@pytest.mark.parametrize("bad_id", [-1, 80, 2**31, -(2**40)])
def test_id_out_of_range(bad_id: int) -> None:
    with load(HEADS / "model") as model, pytest.raises(trine.InputError, match="id"):
        model.forward(np.array([[0, bad_id, 2]], np.int64))


def test_sequence_too_long() -> None:
    # Positions begin at 2, so a table of 160 rows holds 158 tokens.
    with load(HEADS / "model") as model:
        fits = model.forward(np.full((1, 158), 5))
        assert np.isfinite(fits["last_hidden_state"]).all()
        with pytest.raises(trine.InputError):
            model.forward(np.full((1, 159), 5))


def damage(name: str, folder: Path, **changes: object) -> Path:
    """Copy a case whose config has `changes`."""
    shutil.copytree(HEADS / name, folder)
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"num_hidden_layers": 3}, "layer.2"),
        ({"hidden_size": 40}, "embeddings"),
        ({"hidden_act": "no_such_function"}, "hidden_act"),
        ({"architectures": ["NoSuchModel"], "model_type": "no-such"}, "no-such|NoSuchModel"),
    ],
)
def test_broken_config(tmp_path: Path, changes: dict[str, object], complaint: str) -> None:
    """A config that doesn't fit the weights is an error at load that names what is wrong."""
    folder = damage("model", tmp_path / "broken", **changes)
    with pytest.raises(trine.ModelError, match=complaint):
        load(folder)
