# SPDX-License-Identifier: Apache-2.0
"""What `predict` makes of logits: classifier, tagger, reader.

test_masks_and_choices.py has the others; tests/parity compares with transformers' pipelines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fakes import VOCAB, make

from trine import Classifier, InputError, ModelError, Reader, Tagger
from trine.numerics import sigmoid, softmax

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = ["the river", "a lake in london", "Ada lives in paris."]
NLI = {"id2label": {"0": "entailment", "1": "neutral", "2": "contradiction"}}


def logits(model: Any, *text: str) -> np.ndarray:
    ids = np.array(model.tokenizer.encode(*text).ids)
    return model._core.one("logits", ids)


def test_numerics() -> None:
    extreme = np.array([[1e4, -1e4, 0], [-1e4, -1e4, -1e4]], np.float32)
    np.testing.assert_allclose(softmax(extreme), [[1, 0, 0], [1 / 3] * 3], atol=1e-7)
    np.testing.assert_allclose(sigmoid(extreme)[0], [1, 0, 0.5])
    assert softmax(extreme).dtype == sigmoid(extreme).dtype == np.float32


# Classifier ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "columns", "function"),
    [
        ({}, 3, softmax),
        ({"problem_type": "single_label_classification"}, 3, softmax),
        ({"problem_type": "multi_label_classification"}, 3, sigmoid),
        ({}, 1, sigmoid),
        ({"problem_type": "regression"}, 1, lambda x: x),
    ],
)
def test_scores(folder: Path, config: dict[str, Any], columns: int, function: Any) -> None:
    model = make(Classifier, folder, columns=columns, config=config)
    for text, labels in zip(TEXTS, model.predict(TEXTS), strict=True):
        scores = [x["score"] for x in labels]
        assert scores == sorted(scores, reverse=True)
        wanted = function(logits(model, text))[0]
        assert {x["label"]: x["score"] for x in labels} == {
            f"LABEL_{i}": float(score) for i, score in enumerate(wanted)
        }


def test_forms_of_input(folder: Path) -> None:
    model = make(Classifier, folder, columns=3, config=NLI)
    pair = model.predict(("the river", "a lake"))
    assert model.labels == ["entailment", "neutral", "contradiction"]
    wanted = softmax(logits(model, "the river", "a lake"))[0]
    assert pair[0]["label"] == model.labels[int(wanted.argmax())]
    assert model.predict([("the river", "a lake")]) == [pair]
    assert model.predict([["the river", "a lake"]]) == [pair]
    assert model.predict({"text": "the river", "text_pair": "a lake"}) == pair
    ids = model.tokenizer.encode("the river", "a lake").ids
    assert model.predict([ids]) == [pair]
    assert model.predict("the river") == model.predict(["the river"])[0]
    assert model.predict([]) == []
    assert len(model.predict("the river", top_k=np.int64(2))) == 2
    top_k: Any
    for top_k in ("x", 0, -1, 1.0):
        with pytest.raises(InputError, match=f"top_k is {top_k!r}, expected an integer"):
            model.predict("a", top_k=top_k)
    with pytest.raises(
        InputError, match="function_to_apply 'tanh' is not known; known are sigmoid, softmax, none"
    ):
        model.predict("a", function_to_apply="tanh")
    with pytest.raises(InputError, match="'text' and 'text_pair'"):
        model.predict([{"txt": "a"}])


def test_labels_that_are_missing(folder: Path) -> None:
    model = make(Classifier, folder, columns=3, config={"id2label": {"0": "a", "1": "b"}})
    with pytest.raises(ModelError, match="id2label has no label '2', the model has 3"):
        _ = model.labels
    named = make(Classifier, folder, columns=2, config={"label2id": {"no": 1, "yes": 0}})
    assert named.labels == ["yes", "no"]


@pytest.mark.parametrize(
    ("names", "entailment", "contradiction"),
    [
        (["entailment", "neutral", "contradiction"], 0, 2),
        (["CONTRADICTION", "NEUTRAL", "ENTAILMENT"], 2, 0),
        (["neutral", "entailment", "contradiction"], 1, 2),
        (["entailment", "not_entailment"], 0, 1),
        (["no", "entailment"], 1, 0),
    ],
)
@pytest.mark.parametrize("multi_label", [False, True])
def test_zero_shot(
    folder: Path, names: list[str], entailment: int, contradiction: int, *, multi_label: bool
) -> None:
    config = {"id2label": {str(i): name for i, name in enumerate(names)}}
    model = make(Classifier, folder, columns=len(names), config=config)
    labels = ["red", "green", "blue"]
    found = model.zero_shot(TEXTS, labels, multi_label=multi_label)
    for text, result in zip(TEXTS, found, strict=True):
        rows = np.concatenate([logits(model, text, f"This example is {x}.") for x in labels])
        if multi_label:
            wanted = softmax(rows[:, [contradiction, entailment]])[:, 1]
        else:
            wanted = softmax(rows[:, entailment])
        got = {x["label"]: x["score"] for x in result}
        np.testing.assert_allclose([got[x] for x in labels], wanted, rtol=1e-6)
        assert [x["label"] for x in result] == sorted(labels, key=lambda x: -got[x])
    assert model.zero_shot(TEXTS[0], "red, green,blue", multi_label=multi_label) == found[0]
    for same in (np.array(labels), (x for x in labels), tuple(labels)):
        assert model.zero_shot(TEXTS[0], same, multi_label=multi_label) == found[0]
    assert model.zero_shot([], labels, multi_label=multi_label) == []


def test_zero_shot_refused(folder: Path) -> None:
    model = make(Classifier, folder, columns=2, config={"id2label": {"0": "good", "1": "bad"}})
    with pytest.raises(ModelError, match="begins with 'entail'"):
        model.zero_shot("a", ["b"])
    with pytest.raises(InputError, match="at least one"):
        model.zero_shot("a", [])
    with pytest.raises(InputError, match=r"has no \{\}"):
        model.zero_shot("a", ["b"], hypothesis_template="no place")
    with pytest.raises(InputError, match="hypothesis_template: expected a text, got NoneType"):
        model.zero_shot("a", ["b"], hypothesis_template=None)
    with pytest.raises(InputError, match=r"labels\[1\]: expected a text, got int"):
        model.zero_shot("a", ["b", 3])
    with pytest.raises(InputError, match="labels: expected a list of texts, got int"):
        model.zero_shot("a", 3)
    with pytest.raises(InputError, match=r"labels\[0\] has half of a surrogate pair"):
        model.zero_shot("a", ["\ud800"])
    nli = make(Classifier, folder, columns=3, config=NLI)
    with pytest.raises(InputError, match="input 1 has half of a surrogate pair"):
        nli.zero_shot(["a", "\ud800"], ["b", "c"])
    for template in ("{label} it is", "{} or {}", "{} {"):
        with pytest.raises(InputError, match="other braces are doubled"):
            model.zero_shot("a", ["b"], hypothesis_template=template)
    with pytest.raises(InputError, match="input 1: expected a text, got tuple"):
        make(Classifier, folder, columns=3, config=NLI).zero_shot(["a", ("a", "b")], ["b"])


def test_zero_shot_cuts_the_text_and_not_the_label(folder: Path) -> None:
    model = make(Classifier, folder, columns=3, config=NLI)
    template = "it is {}."
    label = len(model.tokenizer.encode("it is red.", add_special_tokens=False))
    model.max_seq_length = label + 4 + 3  # special tokens, and three of the text
    found = model.zero_shot("walk " * 50, ["red"], hypothesis_template=template)
    wanted = softmax(logits(model, "walk " * 3, "it is red.")[:, [2, 0]])[0, 1]
    assert model._core.runs == [[label + 7]]
    np.testing.assert_allclose(found[0]["score"], wanted, rtol=1e-6)


@pytest.mark.parametrize(
    ("config", "function"),
    [
        ({}, sigmoid),
        ({"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}, None),
        ({"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}, None),
    ],
)
def test_rank(folder: Path, config: dict[str, Any], function: Any) -> None:
    model = make(Classifier, folder, columns=1, config=config)
    found = model.rank("the lake", TEXTS, return_documents=True)
    scores = [float(logits(model, "the lake", text)[0, 0]) for text in TEXTS]
    assert [x["corpus_id"] for x in found] == np.argsort(-np.array(scores)).tolist()
    wanted = np.array(sorted(scores, reverse=True), np.float32)
    wanted = wanted if function is None else function(wanted)
    np.testing.assert_allclose([x["score"] for x in found], wanted, rtol=1e-6)
    assert [x["text"] for x in found] == [TEXTS[x["corpus_id"]] for x in found]
    assert len(model.rank("the lake", TEXTS, top_k=1)) == 1
    assert "text" not in model.rank("the lake", TEXTS)[0]
    assert model.rank("the lake", []) == []
    assert model.rank("the lake", (x for x in TEXTS), return_documents=True) == found
    one = {TEXTS[0]}
    assert model.rank("the lake", one, return_documents=True)[0]["text"] == TEXTS[0]
    wrong: Any
    for wrong, complaint in [
        (("q", None), "documents: expected a list of texts, got NoneType"),
        (("q", "a"), "documents: expected a list of texts, got 'a'"),
        (("q", [None]), r"documents\[0\]: expected a text, got NoneType"),
        ((None, ["a"]), "query: expected a text, got NoneType"),
        ((["q"], ["a"]), "query: expected a text, got list"),
    ]:
        with pytest.raises(InputError, match=complaint):
            model.rank(*wrong)
    for wrong in ("x", 0, -1):
        with pytest.raises(InputError, match=f"top_k is {wrong!r}"):
            model.rank("q", TEXTS, top_k=wrong)
    with pytest.raises(InputError, match="has 3"):
        make(Classifier, folder, columns=3).rank("a", TEXTS)


# Tagger ----------------------------------------------------------------------------------------

TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
TAG_CONFIG = {"id2label": {str(i): tag for i, tag in enumerate(TAGS)}}


class Scripted:
    """A core whose logits are told: one tag and a confidence for each token."""

    def __init__(self, tags: dict[int, tuple[str, float]]) -> None:
        self.tags = tags
        self.outputs = {"logits": ("tokens", len(TAGS))}

    def info(self) -> dict[str, str]:
        return {"device": "cpu"}

    def run(self, ids: np.ndarray, offsets: np.ndarray, **_: Any) -> dict[str, np.ndarray]:
        del offsets
        out = np.zeros((len(ids), len(TAGS)), np.float32)
        for row, token in enumerate(ids.tolist()):
            tag, strength = self.tags.get(token, ("O", 5.0))
            out[row, TAGS.index(tag)] = strength
        return {"logits": out}


def tagger(folder: Path, **tags: tuple[str, float]) -> Any:
    model = make(Tagger, folder, columns=len(TAGS), config=TAG_CONFIG)
    model._core = Scripted({VOCAB.index(k.replace("__", "##")): v for k, v in tags.items()})
    return model


def told(found: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(x["label"], x["text"]) for x in found]


def test_tags_become_entities(folder: Path) -> None:
    model = tagger(
        folder, ada=("B-PER", 4), grace=("I-PER", 3), london=("B-LOC", 5), paris=("B-LOC", 5)
    )
    text = "Ada Grace works in London Paris."
    found = model.predict(text)
    assert told(found) == [("PER", "Ada Grace"), ("LOC", "London"), ("LOC", "Paris")]
    assert [(x["start"], x["end"]) for x in found] == [(0, 9), (19, 25), (26, 31)]
    means = [np.exp(s) / (np.exp(s) + 4) for s in (4, 3)]
    assert found[0]["score"] == pytest.approx(np.mean(means), rel=1e-6)
    plain = model.predict([text], aggregation="none")[0]
    assert told(plain)[:2] == [("B-PER", "Ada"), ("I-PER", "Grace")]
    everything = model.predict(text, ignore_labels=())
    assert [x["label"] for x in everything] == ["PER", "O", "LOC", "LOC", "O"]
    assert model.predict(["", text]) == [[], found]


def test_words_agree(folder: Path) -> None:
    """walk|##ing|##ly: the first says LOC, the second, surest, PER, the third LOC."""
    model = tagger(folder, walk=("B-LOC", 2), __ing=("B-PER", 6), __ly=("B-LOC", 3))
    texts = {
        "simple": [("LOC", "walk"), ("PER", "ing"), ("LOC", "ly")],
        "first": [("LOC", "walkingly")],
        "max": [("PER", "walkingly")],
    }
    for aggregation, wanted in texts.items():
        assert told(model.predict("the walkingly river", aggregation=aggregation)) == wanted
    rows = softmax(
        model._core.run(np.array([VOCAB.index(t) for t in ("walk", "##ing", "##ly")]), None)[
            "logits"
        ]
    )
    best = rows.mean(axis=0)
    found = model.predict("walkingly", aggregation="average")[0]
    assert found["label"] == TAGS[int(best.argmax())][2:]
    assert found["score"] == pytest.approx(float(best.max()), rel=1e-6)


def test_a_long_text_is_read_in_windows(folder: Path) -> None:
    model = tagger(folder, london=("B-LOC", 5))
    text = "the river in a city " * 12 + "london " + "a lake and a bridge " * 12 + "london"
    found = model.predict(text, stride=10)
    places = [i for i in range(len(text)) if text.startswith("london", i)]
    assert [x["start"] for x in found] == places
    plain = model.predict(text, aggregation="none", ignore_labels=(), stride=10)
    assert len(plain) == len(model.tokenizer.encode(text)) - 2
    assert [text[x["start"] : x["end"]] for x in plain] == [x["text"] for x in plain]


def test_tagger_refuses(folder: Path) -> None:
    model = tagger(folder)
    with pytest.raises(InputError, match="aggregation 'best'"):
        model.predict("a", aggregation="best")
    with pytest.raises(InputError, match="input 1: expected a text"):
        model.predict(["a", [1, 2]])
    stride: Any
    for stride in (-1, "3", 2.5):
        with pytest.raises(InputError, match=f"stride is {stride!r}, expected an integer"):
            model.predict("a " * 90, stride=stride)
    with pytest.raises(InputError, match="input 1 has half of a surrogate pair"):
        model.predict(["a", "\ud800"])
    with pytest.raises(InputError, match="ignore_labels: expected a list of texts, got int"):
        model.predict("a", ignore_labels=3)
    assert model.predict("Ada", ignore_labels="O") == []


# Reader ----------------------------------------------------------------------------------------


def test_answers(folder: Path) -> None:
    model = make(Reader, folder, columns=1)
    context = "Ada lives in London. Grace works there."
    best = model.predict(("who lives there", context))
    assert set(best) == {"text", "score", "start", "end"}
    assert best["text"] == context[best["start"] : best["end"]] != ""
    several = model.predict([("who lives there", context)], top_k=4)[0]
    assert several[0] == best
    scores = [x["score"] for x in several]
    assert scores == sorted(scores, reverse=True)
    assert len({x["text"].lower() for x in several}) == len(several) <= 4
    assert model.predict([{"question": "who lives there", "context": context}]) == [best]
    all_words = model.predict(("who", context), top_k=50, max_answer_len=1)
    assert {x["text"] for x in all_words} == {
        "Ada",
        "lives",
        "in",
        "London",
        ".",
        "Grace",
        "works",
        "there",
    }
    unaligned = model.predict(("who", "walking"), top_k=9, max_answer_len=1, align_to_words=False)
    assert {x["text"] for x in unaligned} <= {"walk", "ing"}


def test_no_answer(folder: Path) -> None:
    model = make(Reader, folder, columns=1)
    pair = ("who lives there", "Ada lives in London.")
    found = model.predict([pair], top_k=40, handle_impossible=True)[0]
    empty = [x for x in found if x["text"] == ""]
    assert len(empty) == 1
    ids = np.array(model.tokenizer.encode(*pair).ids)
    inside = np.array(model.tokenizer.encode(*pair).sequence_ids) == 1
    inside[0] = True
    wanted = 1.0
    for name in ("start_logits", "end_logits"):
        row = np.where(inside, model._core.one(name, ids)[:, 0], -10000.0)
        wanted *= float(np.exp(row[0] - row.max()) / np.exp(row - row.max()).sum())
    assert empty[0]["score"] == pytest.approx(wanted, rel=1e-5)


def test_a_long_context_is_read_in_windows(folder: Path) -> None:
    model = make(Reader, folder, columns=1)
    context = " ".join(["the river in a city"] * 30)
    found = model.predict(("where", context), max_seq_len=24, doc_stride=6)
    assert len(model._core.runs[0]) > 5
    assert max(model._core.runs[0]) == 24
    assert context[found["start"] : found["end"]] == found["text"]


@pytest.mark.parametrize(
    ("inputs", "complaint"),
    [
        (["a"], "input 0: expected \\(question, context\\)"),
        ([("a", "b"), ("a", 3)], "input 1: question and context must be texts"),
        ([("a", "")], "must not be empty"),
        ([{"question": "a"}], "must be texts"),
        ([("a", "b"), ("a", "\ud800")], "input 1 has half of a surrogate pair"),
    ],
)
def test_reader_refuses(folder: Path, inputs: Any, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        make(Reader, folder, columns=1).predict(inputs)


@pytest.mark.parametrize("name", ["top_k", "max_answer_len", "max_seq_len", "doc_stride"])
@pytest.mark.parametrize("value", ["a", 2.5, -1, True])
def test_reader_s_numbers(folder: Path, name: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"{name} is {value!r}, expected an integer"):
        make(Reader, folder, columns=1).predict(("who", "Ada"), **{name: value})


def test_equal_answers_add_up(folder: Path) -> None:
    """As in the pipeline of transformers 4, whose sums may exceed one, too."""
    model = make(Reader, folder, columns=1)
    ada = VOCAB.index("ada")

    def one(_name: str, ids: np.ndarray, _skip: int) -> np.ndarray:
        return np.where(ids == ada, 9.0, -9.0)[:, None].astype(np.float32)

    model._core.one = one
    context = "ada . " * 60
    (found,) = model.predict(("who", context), top_k=1, max_answer_len=1, max_seq_len=24)
    assert found["text"] == "ada"
    windows = len(model._core.runs[0])
    assert 1 < found["score"] <= windows
    assert model.predict(("who", context), max_answer_len=2**40)["text"].startswith("ada")
