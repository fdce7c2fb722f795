# SPDX-License-Identifier: Apache-2.0
"""Sentence-transformers folders of every kind of module against the library's own vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from compare import HERE, assert_outputs, assert_quantized
from stacks import STACKS, TEXTS, write_stack

import trine

if TYPE_CHECKING:
    from pathlib import Path

TOLERANCE = 2e-5
EXPECTED = dict(np.load(HERE / "sentence.npz"))


def load(name: str, folder: Path) -> trine.Embedder:
    return trine.load(write_stack(STACKS[name], folder), dtype="float32", device="cpu")


def test_every_stack_has_vectors() -> None:
    assert sorted(EXPECTED) == sorted(STACKS)


@pytest.mark.parametrize("name", STACKS)
def test_encode(name: str, tmp_path: Path) -> None:
    expected = EXPECTED[name]
    with load(name, tmp_path) as model:
        got = model.encode(list(TEXTS), **STACKS[name].encode)
    if expected.dtype == np.float32:
        assert_outputs({"vectors": got}, {"vectors": expected}, TOLERANCE, name)
        return
    width = STACKS[name].encode.get("truncate_dim")
    binary = "binary" in STACKS[name].encode["precision"]
    unsure = np.abs(EXPECTED["normalize"][:, :width]) < 1e-6 if binary else None
    assert_quantized(got, expected, unsure)


@pytest.mark.parametrize("name", ["prompt-default", "prompt-excluded-weighted", "all-modes"])
def test_batches_and_order_change_nothing(name: str, tmp_path: Path) -> None:
    options = STACKS[name].encode
    with load(name, tmp_path) as model:
        together = model.encode(list(TEXTS), **options)
        one_by_one = model.encode(list(TEXTS), batch_size=1, **options)
        backwards = model.encode(list(TEXTS)[::-1], batch_size=5, **options)
        alone = model.encode(TEXTS[2], **options)
    np.testing.assert_array_equal(one_by_one, together)
    np.testing.assert_array_equal(backwards[::-1], together)
    assert alone.shape == together.shape[1:]
    np.testing.assert_array_equal(alone, together[2])


def test_predict_is_encode(tmp_path: Path) -> None:
    with load("dense-tanh", tmp_path) as model:
        vectors = model.predict(list(TEXTS))
        np.testing.assert_array_equal(np.stack(list(vectors)), model.encode(list(TEXTS)))


def test_forward_gives_the_sentence_embedding(tmp_path: Path) -> None:
    """`forward` applies the modules too; it takes ids as they are, so no prompt and no limit."""
    with load("normalize", tmp_path) as model:
        ids = np.array([[0, 7, 8, 2], [0, 9, 2, 1]])
        mask = np.array([[1, 1, 1, 1], [1, 1, 1, 0]])
        outputs = model.forward(ids, mask)
    hidden, weights = outputs["last_hidden_state"], mask[..., None]
    mean = (hidden * weights).sum(1) / weights.sum(1)
    expected = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(outputs["sentence_embedding"], expected, atol=2e-6)
    assert not hidden[1, 3].any()


def test_unknown_prompt(tmp_path: Path) -> None:
    with load("prompt-default", tmp_path) as model, pytest.raises(ValueError, match="no-such"):
        model.encode(["text"], prompt_name="no-such")


def test_unknown_precision(tmp_path: Path) -> None:
    with load("mean", tmp_path) as model, pytest.raises(ValueError, match="float7"):
        model.encode(["text"], precision="float7")
