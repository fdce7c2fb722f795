# SPDX-License-Identifier: Apache-2.0
"""`forward`: padded arrays in, transformers' shapes out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fakes import HIDDEN, make

from trine import Chooser, Classifier, Embedder, InputError, Reader, Tagger

if TYPE_CHECKING:
    from pathlib import Path

IDS = np.array([[0, 7, 8, 2], [0, 9, 2, 1], [0, 2, 1, 1]])
MASK = (IDS != 1).astype(np.int8)


def test_shapes_and_padding(tmp_path: Path) -> None:
    model = make(Embedder, tmp_path)
    outputs = model.forward(IDS, MASK)
    assert {n: v.shape for n, v in outputs.items()} == {
        "last_hidden_state": (3, 4, HIDDEN),
        "sentence_embedding": (3, HIDDEN),
    }
    assert all(v.dtype == np.float32 for v in outputs.values())
    for row, (ids, mask) in enumerate(zip(IDS, MASK, strict=True)):
        length = int(mask.sum())
        wanted = model._core.one("last_hidden_state", ids[:length])
        np.testing.assert_array_equal(outputs["last_hidden_state"][row, :length], wanted)
        assert not outputs["last_hidden_state"][row, length:].any()
        pooled = model._core.one("sentence_embedding", ids[:length])[0]
        np.testing.assert_array_equal(outputs["sentence_embedding"][row], pooled)


def test_parts_give_the_same_as_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(Embedder, tmp_path)
    rng = np.random.RandomState(0)
    ids = rng.randint(2, 20, (40, 11))
    mask = np.arange(11) < rng.randint(0, 12, 40)[:, None]
    whole = model.forward(ids, mask)
    assert len(model._core.runs) == 1
    monkeypatch.setattr("trine.tasks.base.TOKEN_BUDGET", 25)
    parts = model.forward(ids, mask)
    assert len(model._core.runs) > 5
    for name, value in whole.items():
        np.testing.assert_array_equal(parts[name], value)


def test_wide_outputs_run_in_smaller_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trine.tasks.base.OUTPUT_BUDGET", 10 * HIDDEN)
    model = make(Tagger, tmp_path)
    model.forward(np.full((6, 5), 7))
    assert max(map(sum, model._core.runs)) <= 10


def test_outputs_by_name(tmp_path: Path) -> None:
    model = make(Embedder, tmp_path)
    assert set(model.forward(IDS, MASK, outputs=["last_hidden_state"])) == {"last_hidden_state"}
    assert set(model.forward(IDS, MASK, outputs="sentence_embedding")) == {"sentence_embedding"}
    with pytest.raises(InputError, match="no output 'logits'; this model has last_hidden_state"):
        model.forward(IDS, outputs=["logits"])


def test_heads(tmp_path: Path) -> None:
    assert make(Classifier, tmp_path, columns=3).forward(IDS, MASK)["logits"].shape == (3, 3)
    assert make(Tagger, tmp_path, columns=1).forward(IDS, MASK)["logits"].shape == (3, 4, 1)
    reader = make(Reader, tmp_path, columns=1).forward(IDS, MASK)
    assert reader["start_logits"].shape == reader["end_logits"].shape == (3, 4)
    choices = np.stack([IDS, IDS])
    chooser = make(Chooser, tmp_path, columns=1)
    assert chooser.forward(choices, np.stack([MASK, MASK]))["logits"].shape == (2, 3)
    with pytest.raises(InputError, match="\\[batch, choices, length\\]"):
        chooser.forward(IDS)


def test_left_padding(tmp_path: Path) -> None:
    """Exact where it can be; refused where transformers' result comes from a padding token."""
    ids = np.array([[0, 7, 8, 2], [1, 0, 9, 2]])
    mask = np.array([[1, 1, 1, 1], [0, 1, 1, 1]])
    embedder = make(Embedder, tmp_path)
    found = embedder.forward(ids, mask)
    np.testing.assert_array_equal(
        found["last_hidden_state"][1, 1:], embedder._core.one("last_hidden_state", ids[1, 1:])
    )
    assert not found["last_hidden_state"][1, 0].any()
    classifier: Any = make(Classifier, tmp_path)
    with pytest.raises(InputError, match="row 1 is padded on the left"):
        classifier.forward(ids, mask)


def test_token_types(tmp_path: Path) -> None:
    model = make(Embedder, tmp_path)
    model.forward(IDS, MASK, np.zeros_like(IDS))
    assert model._core.types == [None]
    with pytest.raises(InputError, match="no token types"):
        model.forward(IDS, MASK, np.ones_like(IDS))
    typed = make(Embedder, tmp_path, token_types=True)
    typed.forward(IDS, MASK, np.ones_like(IDS))
    assert typed._core.types[0].tolist() == [1] * int(MASK.sum())


def test_too_long(tmp_path: Path) -> None:
    model = make(Embedder, tmp_path, limit=3)
    with pytest.raises(InputError, match="input 0 has 4 tokens, the model takes 3"):
        model.forward(IDS, MASK)
    ids = [[1, 1, 1, 1], [5, 1, 1, 1], [5, 5, 5, 5]]
    assert model.forward(ids[:2], [[0] * 4, [1, 1, 1, 0]], outputs=[]) == {}
    with pytest.raises(InputError, match="input 2 has 4 tokens"):
        model.forward(ids, [[0] * 4, [1, 1, 1, 0], [1] * 4])
    with pytest.raises(InputError, match="input 1 has 4 tokens"):  # padding that isn't masked
        model.forward(ids, [[0] * 4, [1] * 4, [1] * 4])


@pytest.mark.parametrize(
    ("ids", "options", "complaint"),
    [
        (None, {}, "input_ids: expected an array of integers, got NoneType"),
        ("text", {}, "input_ids: expected an array of integers, got str"),
        ([["a"]], {}, "input_ids: expected integers, got texts"),
        ([[1]], {"outputs": 3}, "outputs: expected a list of texts, got int"),
        ([[1]], {"outputs": [["a"]]}, r"outputs\[0\]: expected a text, got list"),
        ([[1]], {"attention_mask": "x"}, "attention_mask: expected an array of integers"),
    ],
)
def test_arguments_of_a_wrong_type(tmp_path: Path, ids: Any, options: Any, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        make(Embedder, tmp_path).forward(ids, **options)


def test_no_rows(tmp_path: Path) -> None:
    outputs = make(Embedder, tmp_path).forward(np.zeros((0, 5), np.int64))
    assert outputs["last_hidden_state"].shape == (0, 5, HIDDEN)
    assert outputs["sentence_embedding"].shape == (0, HIDDEN)
