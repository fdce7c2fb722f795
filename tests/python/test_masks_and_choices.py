# SPDX-License-Identifier: Apache-2.0
"""What `predict` makes of logits: filler, detector, chooser. The others are in test_heads.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fakes import MASK, VOCAB, make

from trine import Chooser, Detector, Filler, InputError, ModelError
from trine.numerics import sigmoid, softmax

if TYPE_CHECKING:
    from pathlib import Path


def logits(model: Any, *text: str) -> np.ndarray:
    ids = np.array(model.tokenizer.encode(*text).ids)
    return model._core.one("logits", ids)


# Filler ----------------------------------------------------------------------------------------


def test_candidates(folder: Path) -> None:
    model = make(Filler, folder, columns=len(VOCAB))
    text = "the <mask> lives in london"
    ids = np.array(model.tokenizer.encode(text).ids)
    scores = softmax(model._core.one("logits", ids))[ids == MASK][0]
    (found,) = model.predict(text, top_k=3)
    assert [x["token"] for x in found] == np.argsort(-scores)[:3].tolist()
    for candidate in found:
        assert candidate["score"] == pytest.approx(float(scores[candidate["token"]]), rel=1e-6)
        assert candidate["text"] == model.tokenizer.decode([candidate["token"]])
        if not VOCAB[candidate["token"]].startswith(("#", "<", "[")):
            assert candidate["sequence"] == f"the {candidate['text']} lives in london"
    assert model.predict([text, text], top_k=3) == [[found], [found]]
    assert model.predict([ids.tolist()], top_k=3) == [[found]]


def test_several_masks(folder: Path) -> None:
    model = make(Filler, folder, columns=len(VOCAB))
    texts = ["<mask> the <mask>", "a <mask>"]
    found = model.predict(texts, top_k=2)
    assert [[len(candidates) for candidates in masks] for masks in found] == [[2, 2], [2]]
    assert "<mask>" in found[0][0][0]["sequence"]
    assert [model.predict(text, top_k=2) for text in texts] == found


def test_targets(folder: Path) -> None:
    model = make(Filler, folder, columns=len(VOCAB))
    (found,) = model.predict("the <mask>", targets=["city", "river", "walking"])
    assert {x["text"] for x in found} == {"city", "river", "walk"}
    (all_tokens,) = model.predict("the <mask>", top_k=len(VOCAB))
    everything = {x["token"]: x["score"] for x in all_tokens}
    assert all(x["score"] == everything[x["token"]] for x in found)
    with pytest.raises(InputError, match="at least one"):
        model.predict("the <mask>", targets=[])
    with pytest.raises(InputError, match="'' is not in the vocabulary"):
        model.predict("the <mask>", targets="")


def test_filler_refuses(folder: Path) -> None:
    model = make(Filler, folder, columns=len(VOCAB))
    with pytest.raises(InputError, match="input 1 has no <mask>"):
        model.predict(["<mask>", "no mask"])
    with pytest.raises(InputError, match="among its first 40 tokens"):
        model.predict("walk " * 60 + "<mask>")
    top_k: Any
    for top_k in (0, 2.5, None):
        with pytest.raises(InputError, match=f"top_k is {top_k!r}"):
            model.predict("<mask>", top_k=top_k)
    for targets, complaint in [
        ([3], r"targets\[0\]: expected a text, got int"),
        (3, "targets: expected a list of texts, got int"),
        (["a\ud800"], r"targets\[0\] has half of a surrogate pair"),
    ]:
        with pytest.raises(InputError, match=complaint):
            model.predict("<mask>", targets=targets)
    with pytest.raises(InputError, match="mask_token_id is 'x'"):
        model.predict("<mask>", mask_token_id="x")


def test_masks_without_a_tokenizer(folder: Path, tmp_path: Path) -> None:
    """Ids and scores are there; only texts need a tokenizer."""
    wanted = make(Filler, folder, columns=len(VOCAB)).predict([[0, MASK, 7, 2]])
    assert wanted[0][0][0]["text"] is not None
    bare = make(Filler, tmp_path, columns=len(VOCAB))
    found = bare.predict([[0, MASK, 7, 2]], mask_token_id=np.int64(MASK))
    assert found == [[[x | {"text": None, "sequence": None} for x in wanted[0][0]]]]
    named = make(Filler, tmp_path, columns=len(VOCAB), config={"mask_token_id": MASK})
    assert named.predict([0, MASK, 7, 2]) == found[0]
    with pytest.raises(InputError, match="mask_token_id: neither a tokenizer"):
        bare.predict([[0, MASK, 2]])
    with pytest.raises(InputError, match=f"input 0 has no mask, id {MASK}, among its first 2"):
        named.predict([[0, 2]])
    for inputs, targets in [("a <mask>", None), ([[0, MASK, 2]], "city")]:
        with pytest.raises(ModelError, match="token ids but no text"):
            named.predict(inputs, targets=targets)


# Detector --------------------------------------------------------------------------------------


def test_detector_finds_replaced_tokens(folder: Path) -> None:
    model = make(Detector, folder, columns=1)
    assert model.labels == ["original", "replaced"]
    text = "Ada lives in paris."
    encoding = model.tokenizer.encode(text)
    scores = sigmoid(logits(model, text)[:, 0])
    rows = zip(encoding.offsets, encoding.special_tokens_mask, scores, strict=True)
    wanted = [(*offsets, score) for offsets, special, score in rows if not special]
    every = model.predict(text, aggregation="none", ignore_labels=())
    assert [(x["start"], x["end"]) for x in every] == [x[:2] for x in wanted]
    for found, (_, _, score) in zip(every, wanted, strict=True):
        assert found["label"] == ("replaced" if score > 0.5 else "original")
        assert found["score"] == pytest.approx(max(score, 1 - score), rel=1e-6)
    assert {x["label"] for x in model.predict(text)} <= {"replaced"}
    ids = [encoding.ids, encoding.ids[::-1]]
    assert model.forward(ids)["logits"].shape == (2, len(encoding.ids))


# Chooser ---------------------------------------------------------------------------------------


def test_choices(folder: Path) -> None:
    model = make(Chooser, folder, columns=1)
    questions = [("the river", ["a lake", "a city"]), ("ada", ["walk", "talk", "a"])]
    found = model.predict(questions, batch_size=2)
    for (prompt, choices), scores in zip(questions, found, strict=True):
        row = np.array([logits(model, prompt, c)[0, 0] for c in choices], np.float32)
        np.testing.assert_allclose(scores, softmax(row), rtol=1e-6)
    assert model.predict(questions[0]) == found[0]
    assert model.predict([]) == []


@pytest.mark.parametrize(
    ("inputs", "complaint"),
    [
        (None, "inputs: expected a list, got NoneType"),
        (3, "inputs: expected a list, got int"),
        ("a", "input 0: expected"),
        (["a"], "input 0: expected"),
        ([("a", "b")], "input 0: expected"),
        (("a", None), "input 0: choices: expected a list of texts, got NoneType"),
        (("a", 3), "input 0: choices: expected a list of texts, got int"),
        ([("a", [])], "input 0: expected at least one choice"),
        ([("a", [3])], r"input 0: choices\[0\]: expected a text, got int"),
        ([("b", ["a"]), (1, ["a"])], "input 1: prompt: expected a text, got int"),
        (("a", ["b", "\ud800"]), r"input 0: choices\[1\] has half of a surrogate pair"),
    ],
)
def test_chooser_refuses(folder: Path, inputs: Any, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        make(Chooser, folder, columns=1).predict(inputs)
