# SPDX-License-Identifier: Apache-2.0
"""The tasks against transformers' pipelines, on tiny random models with a tiny tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from compare import corpus
from transformers import AutoTokenizer, PreTrainedModel, pipeline

import trine

Make = Callable[..., tuple[PreTrainedModel, Path]]

TOLERANCE = 2e-5  # of a probability; of a raw score relative to the largest
MAX_LENGTH = 128
TEXTS = [
    *[text for text in corpus() if len(text) < 130][:24],
    "",
    "a",
    "NASA's Zürich café, opened in 2024, costs €12.50!",
    "   Two  spaces , and\ttabs ... ",
    "北京 and Tokyo",
]
PAIRS = list(zip(TEXTS, TEXTS[3:] + TEXTS[:3], strict=True))
NLI = {"id2label": {0: "contradiction", 1: "neutral", 2: "entailment"}}
TAGS = {"id2label": dict(enumerate(["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "MISC"]))}


def field(item: Any, name: str) -> Any:
    """Return a result's field, whether results are mappings or objects."""
    return item[name] if isinstance(item, dict) else getattr(item, name)


def pipe(task: str, folder: Path, **options: Any) -> Any:
    """Make a pipeline on the folder, in float32 on the CPU."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return pipeline(
        task, model=str(folder), tokenizer=tokenizer, device="cpu", dtype=torch.float32, **options
    )


def load(folder: Path) -> Any:
    return trine.load(folder, dtype="float32", device="cpu")


def same_labels(got: Sequence[Any], expected: Sequence[dict[str, Any]]) -> None:
    """Expect the same labels in the same order, with the same scores."""
    assert [field(x, "label") for x in got] == [x["label"] for x in expected]
    wanted = np.array([x["score"] for x in expected])
    atol = TOLERANCE * float(np.abs(wanted).max(initial=1.0))
    np.testing.assert_allclose([field(x, "score") for x in got], wanted, rtol=0, atol=atol)


# Classifier ------------------------------------------------------------------------------------


SINGLE = "single_label_classification"  # transformers refuses it for one label
PROBLEMS = [None, "regression", SINGLE, "multi_label_classification"]


@pytest.mark.parametrize(
    ("problem", "labels"),
    [(p, n) for p in PROBLEMS for n in (1, 2, 3, 9) if (p, n) != (SINGLE, 1)],
)
def test_classify(make: Make, problem: str | None, labels: int) -> None:
    """Which function makes scores of logits follows from the config."""
    head = "MPNetForSequenceClassification"
    _, folder = make(head, 60, tokenizer=True, num_labels=labels, problem_type=problem)
    expected = pipe("text-classification", folder)(TEXTS, top_k=None)
    with load(folder) as model:
        got = model.predict(TEXTS)
    assert len(got) == len(TEXTS)
    for mine, theirs in zip(got, expected, strict=True):
        same_labels(mine, theirs)


@pytest.mark.parametrize("function", ["none", "sigmoid", "softmax"])
@pytest.mark.parametrize("top_k", [1, 2, 50, None])
def test_classify_options(make: Make, function: str, top_k: int | None) -> None:
    _, folder = make("MPNetForSequenceClassification", 61, tokenizer=True, num_labels=4)
    options: dict[str, Any] = {"top_k": top_k, "function_to_apply": function}
    expected = pipe("text-classification", folder)(TEXTS, **options)
    with load(folder) as model:
        got = model.predict(TEXTS, **options)
    for mine, theirs in zip(got, expected, strict=True):
        same_labels(mine, theirs)


def test_classify_pairs(make: Make) -> None:
    _, folder = make("MPNetForSequenceClassification", 62, tokenizer=True, **NLI)
    pairs = [{"text": first, "text_pair": second} for first, second in PAIRS]
    expected = pipe("text-classification", folder)(pairs, top_k=None)
    with load(folder) as model:
        got = model.predict(PAIRS)
    for mine, theirs in zip(got, expected, strict=True):
        same_labels(mine, theirs)


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("template", [None, "{} is what this text is about"])
@pytest.mark.parametrize(
    "names", [NLI["id2label"], {0: "ENTAILMENT", 1: "no", 2: "maybe"}, {0: "no", 1: "entailment"}]
)
@pytest.mark.parametrize("labels", [["politics"], ["science", "the weather", "politics", "art"]])
def test_zero_shot(
    make: Make, names: dict[int, str], labels: list[str], template: str | None, multi_label: bool
) -> None:
    ids = {name: index for index, name in names.items()}
    head = "MPNetForSequenceClassification"
    _, folder = make(head, 63, tokenizer=True, id2label=names, label2id=ids)
    options: dict[str, Any] = {"multi_label": multi_label}
    if template:
        options["hypothesis_template"] = template
    texts = [*TEXTS[:6], " ".join(TEXTS[:8])]  # the last is too long: only it is cut, not the label
    zero_shot = pipe("zero-shot-classification", folder)
    expected = [zero_shot(text, candidate_labels=labels, **options) for text in texts]
    with load(folder) as model:
        got = model.zero_shot(texts, labels, **options)
    for mine, theirs in zip(got, expected, strict=True):
        pairs = zip(theirs["labels"], theirs["scores"], strict=True)
        same_labels(mine, [{"label": label, "score": score} for label, score in pairs])


def test_rank(make: Make) -> None:
    """Documents by their score as a pair with the query, best first."""
    _, folder = make("MPNetForSequenceClassification", 64, tokenizer=True, num_labels=1)
    query, documents = TEXTS[0], TEXTS[1:12]
    pairs = [{"text": query, "text_pair": document} for document in documents]
    scores = [x[0]["score"] for x in pipe("text-classification", folder)(pairs, top_k=None)]
    with load(folder) as model:
        got = model.rank(query, documents)
    assert [field(x, "corpus_id") for x in got] == np.argsort(-np.array(scores)).tolist()
    wanted = sorted(scores, reverse=True)
    np.testing.assert_allclose([field(x, "score") for x in got], wanted, rtol=0, atol=TOLERANCE)


# Tagger ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("aggregation", ["none", "simple", "first", "average", "max"])
@pytest.mark.parametrize("seed", [65, 66, 67])
def test_tag(make: Make, aggregation: str, seed: int) -> None:
    _, folder = make("MPNetForTokenClassification", seed, tokenizer=True, **TAGS)
    texts = [text for text in TEXTS if text]
    tagger = pipe("token-classification", folder, aggregation_strategy=aggregation)
    expected = [tagger(text) for text in texts]
    with load(folder) as model:
        got = model.predict(texts, aggregation=aggregation)
    name = "entity" if aggregation == "none" else "entity_group"
    assert sum(map(len, expected)) > 50
    for text, mine, theirs in zip(texts, got, expected, strict=True):
        same_labels(mine, [{"label": x[name], "score": float(x["score"])} for x in theirs])
        for entity, wanted in zip(mine, theirs, strict=True):
            start, end = field(entity, "start"), field(entity, "end")
            assert (start, end) == (wanted["start"], wanted["end"])
            assert field(entity, "text") == text[start:end]


# Reader ----------------------------------------------------------------------------------------


def windows(tokenizer: Any, question: str, context: str) -> Any:
    """Return the question with each window of the context, as the pipeline cuts it."""
    longest = min(tokenizer.model_max_length, 384)
    return tokenizer(
        question,
        context,
        truncation="only_second",
        max_length=longest,
        stride=min(longest // 2, 128),
        return_overflowing_tokens=True,
    )


def spans(start: np.ndarray, end: np.ndarray, inside: np.ndarray) -> list[tuple[float, int, int]]:
    """Return the 12 best spans of at most 15 tokens of the context: (probability, first, last).

    The <s> token takes part in the softmax, where it stands for "no answer", and in nothing else.
    """
    counts = inside.copy()
    counts[0] = True
    first, last = (np.exp(np.where(counts, x - x[counts].max(), -np.inf)) for x in (start, end))
    products = np.outer(first / first.sum(), last / last.sum())
    products = np.tril(np.triu(products), 14)
    products[~inside] = products[:, ~inside] = -1
    order = np.argsort(-products, axis=None, kind="stable")[:12]
    rows, columns = np.unravel_index(order, products.shape)
    found = zip(products[rows, columns].tolist(), rows.tolist(), columns.tolist(), strict=True)
    return [span for span in found if span[0] >= 0]


def read(model: PreTrainedModel, tokenizer: Any, question: str, context: str) -> dict[str, Any]:
    """Answer as the question-answering pipeline of transformers 4.57 does by default.

    Version 5 has no such pipeline. Spans grow to whole words; spans with the same text, of any
    case and from any window, are one answer whose score is their sum.
    """
    encoded = windows(tokenizer, question, context)
    answers: list[dict[str, Any]] = []
    for window, ids in enumerate(encoded["input_ids"]):
        with torch.inference_mode():
            outputs = model(torch.tensor([ids]))
        inside = np.array([sequence == 1 for sequence in encoded.sequence_ids(window)])
        logits = outputs.start_logits[0].numpy(), outputs.end_logits[0].numpy()
        for score, first, last in spans(*logits, inside):
            words = encoded.token_to_word(window, first), encoded.token_to_word(window, last)
            start = encoded.word_to_chars(window, words[0], sequence_index=1).start
            end = encoded.word_to_chars(window, words[1], sequence_index=1).end
            text = context[start:end]
            same = [x for x in answers if x["text"].lower() == text.lower()]
            if same:
                same[0]["score"] += score
            else:
                answers.append({"score": score, "start": start, "end": end, "text": text})
    return max(answers, key=lambda answer: answer["score"])


@pytest.mark.parametrize("seed", [68, 69, 70])
@pytest.mark.parametrize("long", [False, True])
def test_read(make: Make, seed: int, long: bool) -> None:
    reference, folder = make("MPNetForQuestionAnswering", seed, tokenizer=True)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = [text for text in TEXTS if len(text) > 1]
    if long:
        texts = [" ".join(texts[i : i + 9]) for i in range(6)]
    questions = ["What did the committee propose?", "Who?"] * len(texts)
    pairs = list(zip(questions, texts, strict=False))
    expected = [read(reference, tokenizer, question, context) for question, context in pairs]
    if long:
        counts = [len(windows(tokenizer, *pair)["input_ids"]) for pair in pairs]
        assert max(counts) > 1
    with load(folder) as model:
        got = model.predict(pairs)
    for (_, context), mine, theirs in zip(pairs, got, expected, strict=True):
        assert (field(mine, "start"), field(mine, "end")) == (theirs["start"], theirs["end"])
        assert field(mine, "text") == context[theirs["start"] : theirs["end"]]
        assert abs(field(mine, "score") - theirs["score"]) <= TOLERANCE


# Filler ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("top_k", [1, 5, 40])
def test_fill(make: Make, top_k: int) -> None:
    _, folder = make("MPNetForMaskedLM", 71, tokenizer=True)
    texts = ["the <mask> of the city", "<mask>", "one <mask> and <mask><mask>."]
    texts += [text.replace("the", "<mask>", 2) for text in TEXTS if "the" in text][:10]
    fill = pipe("fill-mask", folder, top_k=top_k)
    with load(folder) as model:
        got = model.predict(texts, top_k=top_k)
    for text, masks in zip(texts, got, strict=True):
        expected = fill(text)
        expected = expected if text.count("<mask>") > 1 else [expected]
        assert len(masks) == len(expected)
        for mine, theirs in zip(masks, expected, strict=True):
            assert [field(x, "token") for x in mine] == [x["token"] for x in theirs]
            wanted = [x["score"] for x in theirs]
            scores = [field(x, "score") for x in mine]
            np.testing.assert_allclose(scores, wanted, rtol=0, atol=TOLERANCE)


# Chooser ---------------------------------------------------------------------------------------


def test_choose(make: Make) -> None:
    """A probability per choice: the softmax over the choices' logits."""
    reference, folder = make("MPNetForMultipleChoice", 72, tokenizer=True)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    questions = [(TEXTS[0], TEXTS[1:4]), (TEXTS[5], TEXTS[6:8]), (TEXTS[9], TEXTS[10:15])]
    with load(folder) as model:
        got = model.predict(questions)
    for (question, choices), scores in zip(questions, got, strict=True):
        encoded = tokenizer([question] * len(choices), choices, padding=True, return_tensors="pt")
        with torch.inference_mode():
            arrays = {name: value[None] for name, value in encoded.items()}
            expected = reference(**arrays).logits[0].softmax(-1).numpy()
        np.testing.assert_allclose(np.asarray(scores), expected, rtol=0, atol=TOLERANCE)
