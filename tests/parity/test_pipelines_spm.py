# SPDX-License-Identifier: Apache-2.0
"""The tasks with a tokenizer of DeBERTa's kind against transformers' pipelines; long texts.

The models are tiny MPNets: what is compared is what becomes of tokens and offsets.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from compare import corpus
from make_spm import ROOT
from transformers import AutoTokenizer, DebertaV2Tokenizer, pipeline

import trine

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from transformers import PreTrainedModel

    Make = Callable[..., tuple[PreTrainedModel, Path]]

TOLERANCE = 2e-5  # of a probability
TEXTS = [
    *[text for text in corpus() if len(text) < 120][:12],  # fewer tokens than the model takes
    "  NASA's Zürich café, opened in 2024,  costs €12.50! ",
    "北京 and Tokyo… \U0001f468\u200d\U0001f469 [UNK] end",
    "one\ttab\nand\u00a0a (bracket)...",
]
LONG = [" ".join(corpus()[i : i + 12]) for i in range(0, 24, 12)]
TAGS = {"id2label": dict(enumerate(["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "MISC"]))}
NLI = {"id2label": {0: "entailment", 1: "neutral", 2: "contradiction"}}


def prepare(make: Make, head: str, seed: int, **config: Any) -> tuple[PreTrainedModel, Path]:
    """Make a model with the tokenizer of the fixture `plain`, as a tokenizer.json."""
    model, folder = make(head, seed, vocab_size=430, max_position_embeddings=130, **config)
    tokenizer = DebertaV2Tokenizer.from_pretrained(ROOT / "plain", model_max_length=128)
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    names = ["input_ids", "attention_mask"]  # MPNet has no token types
    path.write_text(json.dumps(settings | {"model_input_names": names}))
    return model, folder


def pipe(task: str, folder: Path, **options: Any) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return pipeline(
        task, model=str(folder), tokenizer=tokenizer, device="cpu", dtype=torch.float32, **options
    )


def same_entities(got: list[Any], expected: list[Any], text: str) -> None:
    name = "entity_group" if "entity_group" in expected[0] else "entity"
    assert [x["label"] for x in got] == [x[name] for x in expected]
    assert [(x["start"], x["end"]) for x in got] == [(x["start"], x["end"]) for x in expected]
    assert [x["text"] for x in got] == [text[x["start"] : x["end"]] for x in expected]
    wanted = [float(x["score"]) for x in expected]
    np.testing.assert_allclose([x["score"] for x in got], wanted, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("aggregation", ["none", "simple", "first", "average", "max"])
@pytest.mark.parametrize("seed", [80, 81])
def test_tag(make: Make, aggregation: str, seed: int) -> None:
    _, folder = prepare(make, "MPNetForTokenClassification", seed, **TAGS)
    reference = pipe("token-classification", folder, aggregation_strategy=aggregation)
    with trine.load(folder, dtype="float32") as model:
        for text in TEXTS:
            same_entities(model.predict(text, aggregation=aggregation), reference(text), text)


@pytest.mark.parametrize("aggregation", ["simple", "first", "average", "max"])
@pytest.mark.parametrize("stride", [0, 20])
def test_tag_long_texts(make: Make, aggregation: str, stride: int) -> None:
    """Overlapping windows, merged where entities of two overlap."""
    _, folder = prepare(make, "MPNetForTokenClassification", 82, **TAGS)
    reference = pipe(
        "token-classification", folder, aggregation_strategy=aggregation, stride=stride
    )
    with trine.load(folder, dtype="float32") as model:
        for text in LONG:
            assert len(model.tokenizer.encode(text)) > 300
            got = model.predict(text, aggregation=aggregation, stride=stride)
            same_entities(got, reference(text), text)


@pytest.mark.parametrize("multi_label", [False, True])
def test_zero_shot(make: Make, multi_label: bool) -> None:
    ids = {name: index for index, name in NLI["id2label"].items()}
    _, folder = prepare(make, "MPNetForSequenceClassification", 83, **NLI, label2id=ids)
    labels = ["politics", "the weather", "café"]
    reference = pipe("zero-shot-classification", folder)
    with trine.load(folder, dtype="float32") as model:
        for text in (*TEXTS, LONG[0]):
            expected = reference(text, candidate_labels=labels, multi_label=multi_label)
            got = model.zero_shot(text, labels, multi_label=multi_label)
            assert [x["label"] for x in got] == expected["labels"]
            scores = [x["score"] for x in got]
            np.testing.assert_allclose(scores, expected["scores"], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("targets", [None, ["the", "committee", "of"]])
def test_fill(make: Make, targets: list[str] | None) -> None:
    _, folder = prepare(make, "MPNetForMaskedLM", 84)
    texts = ["the [MASK] of the city", "[MASK]", "  a[MASK]b and [MASK], or  [MASK][MASK]."]
    options = {} if targets is None else {"targets": targets}
    reference = pipe("fill-mask", folder, top_k=9)
    with trine.load(folder, dtype="float32") as model:
        assert model.mask_token == "[MASK]"
        got = model.predict(texts, top_k=9, targets=targets)
    for text, masks in zip(texts, got, strict=True):
        expected = reference(text, **options)
        expected = [expected] if isinstance(expected[0], dict) else expected
        for mine, theirs in zip(masks, expected, strict=True):
            assert [x["token"] for x in mine] == [x["token"] for x in theirs]
            assert [x["text"] for x in mine] == [x["token_str"] for x in theirs]
            assert [x["sequence"] for x in mine] == [x["sequence"] for x in theirs]
            scores = [x["score"] for x in mine]
            wanted = [x["score"] for x in theirs]
            np.testing.assert_allclose(scores, wanted, rtol=0, atol=TOLERANCE)


def n_best(
    model: PreTrainedModel, tokenizer: Any, question: str, context: str, count: int
) -> dict[str, dict[str, Any]]:
    """Return the answers among the best spans of each window by their text, "" for none.

    As the question-answering pipeline of transformers 4.57 with handle_impossible=True and
    align_to_words=False; version 5 has none.
    """
    encoded = tokenizer(
        question,
        context,
        truncation="only_second",
        max_length=128,
        stride=64,
        return_overflowing_tokens=True,
    )
    found: dict[str, dict[str, Any]] = {}
    null = 1.0
    for window, ids in enumerate(encoded["input_ids"]):
        with torch.inference_mode():
            outputs = model(torch.tensor([ids]))
        inside = np.array([s == 1 for s in encoded.sequence_ids(window)])
        allowed = inside | (np.arange(len(ids)) == 0)
        start, end = (
            np.where(allowed, x[0].double().numpy(), -1e4)
            for x in (outputs.start_logits, outputs.end_logits)
        )
        start, end = (np.exp(x - x.max()) / np.exp(x - x.max()).sum() for x in (start, end))
        null = min(null, start[0] * end[0])
        products = np.tril(np.triu(np.outer(start, end)), 14) * np.outer(inside, inside)
        span = encoded.encodings[window].offsets
        for index in np.argsort(-products, axis=None)[:count]:
            first, last = np.unravel_index(index, products.shape)
            low, high = span[first][0], span[last][1]
            entry = {"score": 0.0, "start": low, "end": high}
            text = context[low:high].lower()
            found.setdefault(text, entry)["score"] += products[first, last]
    found[""] = {"score": null, "start": 0, "end": 0}
    return found


@pytest.mark.parametrize("seed", [85, 86])
def test_read_n_best_and_no_answer(make: Make, seed: int) -> None:
    reference, folder = prepare(make, "MPNetForQuestionAnswering", seed)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    contexts = [text for text in TEXTS if len(text) < 200]
    with trine.load(folder, dtype="float32") as model:
        for context in contexts:
            expected = n_best(reference, tokenizer, "Who?", context, 8)
            got = model.predict(
                ("Who?", context), top_k=8, handle_impossible=True, align_to_words=False
            )
            scores = sorted((x["score"] for x in expected.values()), reverse=True)[:8]
            np.testing.assert_allclose([x["score"] for x in got], scores, rtol=0, atol=TOLERANCE)
            for answer in got:
                wanted = expected[answer["text"].lower()]
                assert abs(wanted["score"] - answer["score"]) <= TOLERANCE
                assert context[answer["start"] : answer["end"]] == answer["text"]
