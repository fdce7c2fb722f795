# SPDX-License-Identifier: Apache-2.0
"""The real all-mpnet-base-v2, as `trine.load("demo")` finds it, against sentence-transformers.

Needs the extra `trine[demo]`: without it these tests fail, they don't skip.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from compare import corpus, mpnet_reference

import trine

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def model() -> Iterator[trine.Embedder]:
    with trine.load("demo", dtype="float32", device="cpu") as model:
        yield model


@pytest.fixture(scope="module")
def vectors(model: trine.Embedder) -> np.ndarray:
    return model.encode(corpus())


def test_every_text_is_near_the_reference(vectors: np.ndarray) -> None:
    reference = mpnet_reference()
    assert vectors.shape == reference.shape == (256, 768)
    assert vectors.dtype == np.float32
    difference = np.abs(vectors - reference).max(axis=1)
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1) * np.linalg.norm(reference, axis=1)
    cosine = (vectors.astype(np.float64) * reference).sum(axis=1) / norms
    worst = int(difference.argmax())
    assert difference.max() <= 2e-5, f"text {worst}: {difference[worst]:.2e}"
    worst = int(cosine.argmin())
    assert cosine.min() >= 0.999999, f"text {worst}: {cosine[worst]:.7f}"


def test_the_batch_changes_no_bit(model: trine.Embedder, vectors: np.ndarray) -> None:
    texts = corpus()
    order = np.random.RandomState(0).permutation(len(texts))[:40]
    shuffled = model.encode([texts[i] for i in order], batch_size=7)
    np.testing.assert_array_equal(shuffled, vectors[order])
    for i in order[:5]:
        np.testing.assert_array_equal(model.encode(texts[i]), vectors[i])


def test_the_number_of_threads_changes_no_bit(vectors: np.ndarray) -> None:
    texts = corpus()[:32]
    for threads in (1, 3):
        with trine.load("demo", dtype="float32", device="cpu", threads=threads) as other:
            np.testing.assert_array_equal(other.encode(texts), vectors[:32])


def test_a_text_beyond_the_limit_is_cut(model: trine.Embedder) -> None:
    """The folder's limit is 384 tokens: 382 words of one token each fit beside <s> and </s>."""
    at_limit, beyond = (model.encode(" ".join(["word"] * n)) for n in (382, 500))
    np.testing.assert_array_equal(at_limit, beyond)
