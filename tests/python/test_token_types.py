# SPDX-License-Identifier: Apache-2.0
"""Pairs reach a model that has token types with them, and one that has none without."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import FakeCore, make

from trine import Chooser, Classifier, Filler, InputError, Reader, Tagger

SPM = Path(__file__).resolve().parents[1] / "golden" / "spm" / "plain"
CONFIG = {"model_type": "deberta-v2", "id2label": {"0": "entailment", "1": "no"}}
FIRST, SECOND = "the first text", "and the second one, which is longer"


class Core(FakeCore):
    """One that knows the ids of the other vocabulary."""

    def run(self, ids: np.ndarray, *rest: Any, **keywords: Any) -> dict[str, np.ndarray]:
        self.ids = ids
        return super().run(ids % 100, *rest, **keywords)


@pytest.fixture
def spm_folder(tmp_path: Path) -> Path:
    return shutil.copytree(SPM, tmp_path / "spm")


def load(kind: type, folder: Path, columns: int = 2, *, token_types: bool = True) -> Any:
    model = make(kind, folder, columns=columns, config=CONFIG, token_types=token_types)
    model._core = Core(model._checkpoint.task, columns)
    return model


def expect_pairs(model: Any, pairs: list[tuple[str, str]]) -> None:
    """Expect the last run to have been of these pairs, in any order."""
    wanted = []
    for pair in pairs:
        encoding = model.tokenizer.encode(*pair)
        wanted.append((tuple(encoding.ids), tuple(encoding.type_ids)))
        assert set(encoding.type_ids) == {0, 1}
    bounds = np.cumsum(model._core.runs[-1])[:-1]
    ids = [tuple(row.tolist()) for row in np.split(model._core.ids, bounds)]
    types = [tuple(row.tolist()) for row in np.split(model._core.types[-1], bounds)]
    assert sorted(zip(ids, types, strict=True)) == sorted(wanted)


def test_classifier(spm_folder: Path) -> None:
    model = load(Classifier, spm_folder)
    model.predict([(FIRST, SECOND), (SECOND, FIRST)])
    expect_pairs(model, [(FIRST, SECOND), (SECOND, FIRST)])
    model.zero_shot(FIRST, ["a", "b"])
    expect_pairs(model, [(FIRST, f"This example is {x}.") for x in "ab"])
    one = load(Classifier, spm_folder, 1)
    one.rank(FIRST, [SECOND, "a"])
    expect_pairs(one, [(FIRST, SECOND), (FIRST, "a")])


def test_chooser(spm_folder: Path) -> None:
    model = load(Chooser, spm_folder, 1)
    model.predict([(FIRST, [SECOND, "a"])])
    expect_pairs(model, [(FIRST, SECOND), (FIRST, "a")])


def test_reader(spm_folder: Path) -> None:
    model = load(Reader, spm_folder, 1)
    found = model.predict((FIRST, SECOND))
    assert SECOND[found["start"] : found["end"]] == found["text"] != ""
    expect_pairs(model, [(FIRST, SECOND)])
    model.predict((FIRST, SECOND * 20), max_seq_len=30, doc_stride=5)
    lengths, types = model._core.runs[-1], model._core.types[-1]
    question = len(model.tokenizer.encode(FIRST))
    assert len(lengths) > 3
    for row in np.split(types, np.cumsum(lengths)[:-1]):
        assert row.tolist() == [0] * question + [1] * (len(row) - question)


def test_single_texts(spm_folder: Path) -> None:
    tagger = load(Tagger, spm_folder)
    text = "  Über e\u0301te\u0301  \U0001f468\u200d\U0001f469 the  \u5317\u4eac end" * 9
    found = tagger.predict(text, aggregation="none", ignore_labels=())
    assert len(tagger._core.runs[-1]) > 1
    assert not tagger._core.types[-1].any()
    covered = {i for x in found for i in range(x["start"], x["end"])}
    assert {i for i, c in enumerate(text) if not c.isspace()} <= covered
    filler = load(Filler, spm_folder, 100)
    assert filler.mask_token == "[MASK]"
    (candidates,) = filler.predict("the [MASK] text", top_k=3)
    assert [x["text"] for x in candidates] == [
        filler.tokenizer.decode([x["token"]]) for x in candidates
    ]


@pytest.mark.parametrize("aggregation", ["none", "simple", "first", "average", "max"])
def test_marks_belong_to_the_letter_before(spm_folder: Path, aggregation: str) -> None:
    """NFC composes "e" and its accent, and the library counts one character of the two."""
    tagger = load(Tagger, spm_folder, 1)
    text = "the e\u0301te\u0323\u0301"
    found = tagger.predict(text, aggregation=aggregation, ignore_labels=())
    assert found[-1]["end"] == len(text)
    assert found[-1]["text"].endswith("e\u0323\u0301")
    reader = load(Reader, spm_folder, 1)
    answers = reader.predict(("a", text), top_k=50, align_to_words=False)
    ends = {x["end"] for x in answers}
    assert len(text) in ends
    assert text.index("\u0301") not in ends


def test_a_model_without_them(spm_folder: Path) -> None:
    model = load(Classifier, spm_folder, token_types=False)
    model.predict([(FIRST, SECOND)])
    assert model._core.types == [None]
    with pytest.raises(InputError, match="no token types"):
        model.forward([[1, 5, 2]], token_type_ids=[[0, 1, 1]])
