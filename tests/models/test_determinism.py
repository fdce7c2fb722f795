# SPDX-License-Identifier: Apache-2.0
"""The promise: the same text, the same bits, whatever the batch, its order and the threads."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import trine

if TYPE_CHECKING:
    from trine.loading import Dtype

SENTENCE = Path(__file__).resolve().parent.parent / "golden" / "sentence"
WORDS = st.sampled_from(
    [
        "the",
        "committee",
        "discussed",
        "annual",
        "budget",
        "of",
        "a",
        "city",
        "12.5",
        "<pad>",
        "ü",
        "東京",
    ]
)
TEXTS = st.lists(st.lists(WORDS, max_size=40).map(" ".join), min_size=1, max_size=12)


DTYPES = ["float32", "bfloat16", "int8"]


@pytest.fixture(scope="module", params=DTYPES)
def model(request: pytest.FixtureRequest) -> trine.Embedder:
    loaded = trine.load(SENTENCE, dtype=request.param, device="cpu", threads=2)
    assert isinstance(loaded, trine.Embedder)
    return loaded


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(texts=TEXTS, batch_size=st.integers(1, 12), data=st.data())
def test_batch_and_order(
    model: trine.Embedder, texts: list[str], batch_size: int, data: st.DataObject
) -> None:
    alone = np.stack([model.encode(text) for text in texts])
    order = data.draw(st.permutations(range(len(texts))))
    together = model.encode([texts[i] for i in order], batch_size=batch_size)
    assert np.array_equal(together, alone[order])


@pytest.mark.parametrize("dtype", DTYPES)
def test_thread_counts(dtype: Dtype) -> None:
    texts = [f"the committee discussed item {i} " * (i % 9) for i in range(40)]
    vectors = []
    for threads in (1, 2, 3):
        with trine.load(SENTENCE, dtype=dtype, threads=threads) as loaded:
            vectors.append(loaded.encode(texts))
    assert np.array_equal(vectors[0], vectors[1])
    assert np.array_equal(vectors[0], vectors[2])


def test_many_callers_at_once(model: trine.Embedder) -> None:
    """Concurrent calls are merged into shared runs; nobody's bits change."""
    texts = [f"text number {i} " * (1 + i % 7) for i in range(64)]
    expected = [model.encode(text) for text in texts]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(4):
            for got, want in zip(pool.map(model.encode, texts), expected, strict=True):
                assert np.array_equal(got, want)


def test_closing_while_others_call() -> None:
    """A call that has begun gives its vector; one that comes later, an error that says why."""
    texts = [f"text number {i} " * (1 + i % 7) for i in range(8)]
    with trine.load(SENTENCE, dtype="float32", device="cpu") as model:
        expected = model.encode(texts)
    for _ in range(10):
        loaded = trine.load(SENTENCE, dtype="float32", device="cpu", threads=2)
        vectors = [loaded.encode(text) for text in texts]
        begun = threading.Barrier(9)

        def work(
            i: int,
            model: Any = loaded,
            vectors: list[np.ndarray] = vectors,
            begun: threading.Barrier = begun,
        ) -> None:
            begun.wait()
            while True:
                vectors[i] = model.encode(texts[i])

        with ThreadPoolExecutor(8) as pool:
            running = [pool.submit(work, i) for i in range(8)]
            begun.wait()
            time.sleep(0.02)
            loaded.close()
            for call in running:
                with pytest.raises(trine.InputError, match="the model is closed"):
                    call.result()
        assert np.array_equal(vectors, expected)
