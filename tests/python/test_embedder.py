# SPDX-License-Identifier: Apache-2.0
"""`Embedder`: forms of input, prompts, truncation, precision, order."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fakes import HIDDEN, VOCAB, FakeCore, make

from trine import Embedder, InputError, ModelError
from trine.sentence_transformers import SentenceConfig
from trine.tally import tallied

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = [
    "the river",
    "",
    "a lake and a mountain in the city!",
    "Ada lives in london.",
    "the river",
]


def config(**changes: Any) -> SentenceConfig:
    include = changes.pop("include_prompt", True)
    pooling = {"type": "pooling", "modes": ["mean"], "include_prompt": include}
    prompts = {"query": "talk ", "document": "", "topic": "the city: "}
    return SentenceConfig(modules=[pooling], **({"prompts": prompts} | changes))


@pytest.fixture
def model(folder: Path) -> Any:
    return make(Embedder, folder, sentence=config())


def expected(model: Any, text: str, skip: int = 0) -> np.ndarray:
    ids = np.array(model.tokenizer.encode(text).ids)
    return model._core.one("sentence_embedding", ids, skip)[0]


def test_list_and_single(model: Any) -> None:
    vectors = model.encode(TEXTS)
    assert vectors.shape == (5, HIDDEN)
    assert vectors.dtype == np.float32
    for text, vector in zip(TEXTS, vectors, strict=True):
        np.testing.assert_array_equal(vector, expected(model, text))
        np.testing.assert_array_equal(model.encode(text), vector)
    np.testing.assert_array_equal(model.predict(TEXTS), vectors)
    np.testing.assert_array_equal(model.encode(np.array(TEXTS)), vectors)
    np.testing.assert_array_equal(model.encode(tuple(TEXTS)), vectors)
    np.testing.assert_array_equal(model.encode(t for t in TEXTS), vectors)
    np.testing.assert_array_equal(model.encode([np.array(t) for t in TEXTS]), vectors)
    np.testing.assert_array_equal(model.encode(np.array(TEXTS[2])), vectors[2])  # one text


def test_both_names_of_the_first_argument(folder: Path) -> None:
    model = make(Embedder, folder, sentence=config())
    for encode in (model.encode, model.encode_query, model.encode_document):
        wanted = encode(TEXTS)
        np.testing.assert_array_equal(encode(inputs=TEXTS, pool=None, chunk_size=None), wanted)
        np.testing.assert_array_equal(encode(sentences=TEXTS), wanted)
        with pytest.raises(TypeError, match="either sentences or inputs"):
            encode(TEXTS, inputs=TEXTS)
        with pytest.raises(TypeError, match="either sentences or inputs"):
            encode()
        with pytest.raises(InputError, match="got NoneType"):
            encode(inputs=None)


def test_counts_of_numpy(model: Any) -> None:
    found = model.encode(TEXTS, batch_size=np.int64(2), truncate_dim=np.int32(5))
    np.testing.assert_array_equal(found, model.encode(TEXTS)[:, :5])
    assert max(map(len, model._core.runs[:3])) == 2


def test_empty_list(model: Any) -> None:
    assert model.encode([]).shape == (0, HIDDEN)
    assert model.encode([], truncate_dim=5, precision="int8").shape == (0, 5)
    assert model.encode([], output_value="token_embeddings") == []


def test_order_is_kept_over_runs(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.RandomState(0)
    texts = [" ".join(rng.choice(["the", "city", "walk"], rng.randint(0, 9))) for _ in range(50)]
    together = model.encode(texts)
    np.testing.assert_array_equal(model.encode(texts, batch_size=3), together)
    assert max(map(len, model._core.runs[1:])) == 3
    monkeypatch.setattr("trine.tasks.base.TOKEN_BUDGET", 20)
    monkeypatch.setattr("trine.tasks.inputs.WINDOW", 7)
    model._core.runs.clear()
    np.testing.assert_array_equal(model.encode(texts), together)
    assert max(map(sum, model._core.runs)) <= 20
    assert sum(map(len, model._core.runs)) == 50


def test_token_ids(model: Any) -> None:
    ids = [model.tokenizer.encode(text).ids for text in TEXTS]
    vectors = model.encode(TEXTS)
    np.testing.assert_array_equal(model.encode(ids), vectors)
    np.testing.assert_array_equal(model.encode([np.array(i, np.uint16) for i in ids]), vectors)
    np.testing.assert_array_equal(model.encode(ids[3]), vectors[3])
    np.testing.assert_array_equal(model.encode(np.array(ids[3])), vectors[3])
    square = np.array([ids[0], ids[4]])
    np.testing.assert_array_equal(model.encode(square), vectors[[0, 4]])


def test_token_ids_are_taken_as_they_are(model: Any) -> None:
    model.max_seq_length = 5
    ids = [7] * 50  # beyond max_seq_length, within what the model takes
    wanted = model._core.one("sentence_embedding", np.array(ids))[0]
    np.testing.assert_array_equal(model.encode([ids])[0], wanted)
    for long in ([7] * 61, [7] * 60 + [1], [1] * 61):  # padding ids count
        with pytest.raises(InputError, match="input 1 has 61 tokens, the model takes 60"):
            model.encode([ids, long])
    assert model._core.runs == [[50]]


def test_no_tokenizer(tmp_path: Path) -> None:
    model = make(Embedder, tmp_path)
    assert model.tokenizer is None
    assert model.encode([[5, 6]]).shape == (1, HIDDEN)
    assert model.info()["max_seq_length"] == 60
    with pytest.raises(ModelError, match="no tokenizer\\.json"):
        model.encode("text")


@pytest.mark.parametrize(
    ("inputs", "complaint"),
    [
        (None, "got NoneType"),
        (3, "got int"),
        (b"bytes", "got bytes"),
        ({"a": 1}, "got dict"),
        (np.array(5), "expected a list, got int"),
        (["a", np.array(5)], "input 1: expected a text or token ids, got int"),
        ([("a", None)], "a pair is two texts, the second one is NoneType"),
        (["a", "b\ud800"], "input 1 has half of a surrogate pair, '.ud800', at character 1"),
        (["a", 3], "input 1: expected a text or token ids, got int"),
        ([3.5], "input 0: expected a text"),
        (["a", [1, 2]], "mixed"),
        ([[1], "a"], "mixed"),
        ([[1], []], "input 1 has no tokens"),
        ([[1], [2.5]], "input 1: expected integers"),
        ([[len(VOCAB)]], "out of range"),
        (np.zeros((2, 2, 2), np.int64), "shape"),
        ([["a", "b", "c"]], "a pair is two texts"),
    ],
)
def test_bad_inputs(model: Any, inputs: Any, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        model.encode(inputs)


# Prompts ---------------------------------------------------------------------------------------


def test_prompts(folder: Path) -> None:
    model = make(Embedder, folder, sentence=config(default_prompt_name="topic"))
    text = "the river"
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "the city: "),
        ({"prompt_name": "query"}, "talk "),
        ({"prompt": "walk "}, "walk "),
        ({"prompt": ""}, ""),
        ({"prompt": "walk ", "prompt_name": "query"}, "walk "),
    ]
    for options, prompt in cases:
        wanted = expected(model, prompt + text)
        np.testing.assert_array_equal(model.encode([text], **options)[0], wanted)
    np.testing.assert_array_equal(model.encode_query(text), expected(model, "talk " + text))
    np.testing.assert_array_equal(model.encode_document(text), expected(model, text))
    named = model.encode_query([text], prompt_name="topic", truncate_dim=3)
    np.testing.assert_array_equal(named[0], expected(model, "the city: " + text)[:3])
    with pytest.raises(InputError, match="'no-such' is not known; known are"):
        model.encode(text, prompt_name="no-such")


def test_prompt_left_out_of_pooling(folder: Path) -> None:
    sentence = config(include_prompt=False)
    model = make(Embedder, folder, sentence=sentence)
    wanted = expected(model, "the city: the river", skip=4)  # <s> the city :
    np.testing.assert_array_equal(model.encode("the river", prompt_name="topic"), wanted)
    np.testing.assert_array_equal(model.encode("the river"), expected(model, "the river"))


def test_token_ids_and_prompts(folder: Path) -> None:
    model = make(Embedder, folder, sentence=config(default_prompt_name="topic"))
    wanted = model._core.one("sentence_embedding", np.array([0, 7, 2]))[0]
    np.testing.assert_array_equal(model.encode([0, 7, 2]), wanted)
    with pytest.raises(InputError, match="before token ids"):
        model.encode([[0, 7, 2]], prompt="walk ")


# Truncation ------------------------------------------------------------------------------------


def test_truncation_is_told(folder: Path) -> None:
    model = make(Embedder, folder, sentence=config(max_seq_length=8))
    assert model.max_seq_length == 8
    long = "walk " * 30
    tokens = model.tokenize(["the river", long, "a"])
    assert tokens.truncated == [0, 24, 0]
    assert tokens.lengths.tolist() == [4, 8, 3]
    np.testing.assert_array_equal(model.encode(long), model.encode("walk " * 6))
    with pytest.raises(InputError, match="input 1 has 32 tokens, the limit is 8"):
        model.encode(["a", long], truncate=False)
    with pytest.raises(InputError, match="expected a list"):
        model.tokenize("one text")
    with pytest.raises(InputError, match="expected a list, got NoneType"):
        model.tokenize(None)
    with pytest.raises(InputError, match="input 1: expected a text"):
        model.tokenize(["a", 3])


def test_the_end_that_is_cut(folder: Path) -> None:
    model = make(Embedder, folder, sentence=config(max_seq_length=4))
    np.testing.assert_array_equal(model.encode("walk talk play"), model.encode("walk talk"))
    for output in ("sentence_embedding", "token_embeddings"):
        last = model.encode("walk talk play", truncation_side="left", output_value=output)
        np.testing.assert_array_equal(last, model.encode("talk play", output_value=output))


def test_what_is_tallied(folder: Path) -> None:
    model = make(Embedder, folder, sentence=config(max_seq_length=8))
    model.encode("before")
    with tallied() as tally:
        model.encode(["the river", "walk " * 30])
    model.encode("after")
    assert (tally.tokens, tally.truncated, tally.written) == (4 + 8, 1, 0)
    assert tally.seconds > 0


def test_max_seq_length_can_be_set(model: Any) -> None:
    assert model.max_seq_length == 40
    model.max_seq_length = 60
    assert model.tokenize(["walk " * 99]).lengths.tolist() == [60]
    model.max_seq_length = np.int64(50)
    assert (model.max_seq_length, type(model.max_seq_length)) == (50, int)
    wrong: Any
    for wrong in (0, 61, None, "x", 2.5, True):
        with pytest.raises(InputError, match=f"max_seq_length is {wrong!r}, expected an integer"):
            model.max_seq_length = wrong


# Results ---------------------------------------------------------------------------------------


def test_normalize_and_truncate_dim(model: Any, folder: Path) -> None:
    whole = model.encode(TEXTS)
    cut = model.encode(TEXTS, truncate_dim=5)
    np.testing.assert_array_equal(cut, whole[:, :5])
    scaled = model.encode(TEXTS, truncate_dim=5, normalize_embeddings=True)
    np.testing.assert_allclose(np.linalg.norm(scaled, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(scaled * np.linalg.norm(cut, axis=1)[:, None], cut, atol=1e-5)
    with pytest.raises(InputError, match="truncate_dim is 0"):
        model.encode(TEXTS, truncate_dim=0)
    stored = make(Embedder, folder, sentence=config(truncate_dim=4))
    assert stored.dimension == stored.get_sentence_embedding_dimension() == 4
    assert stored.encode(TEXTS).shape == (5, 4)
    assert stored.encode(TEXTS, truncate_dim=6).shape == (5, 6)
    assert model.dimension == model.get_embedding_dimension() == HIDDEN


def test_scalar_precision(model: Any, caplog: pytest.LogCaptureFixture) -> None:
    vectors = model.encode(TEXTS).astype(np.float64)
    with caplog.at_level(logging.WARNING, "trine"):
        codes = model.encode(TEXTS, precision="uint8")
    assert "5 vectors" in caplog.text
    assert codes.dtype == np.uint8
    low, high = vectors.min(axis=0), vectors.max(axis=0)
    assert (codes.min(axis=0) == 0).all()
    assert (codes.max(axis=0) >= 254).all()  # the top may round down by one, as it does there
    restored = low + (codes + 0.5) * (high - low) / 255
    assert (np.abs(restored - vectors) <= (high - low) / 255).all()
    signed = model.encode(TEXTS, precision="int8")
    np.testing.assert_array_equal(signed.astype(int) + 128, codes)
    ranges = np.stack([np.full(HIDDEN, -9), np.full(HIDDEN, 9)])
    given = model.encode("the river", precision="uint8", ranges=ranges)
    np.testing.assert_array_equal(given, np.floor((vectors[0].astype(np.float32) + 9) / (18 / 255)))
    with pytest.raises(InputError, match="one vector"):
        model.encode("the river", precision="int8")
    with pytest.raises(InputError, match="ranges has shape"):
        model.encode(TEXTS, precision="int8", ranges=[[0], [1]])


def test_binary_precision(model: Any) -> None:
    signs = model.encode(TEXTS) > 0
    packed = model.encode(TEXTS, precision="ubinary")
    assert packed.shape == (5, 2)
    np.testing.assert_array_equal(np.unpackbits(packed, axis=1)[:, :HIDDEN], signs)
    signed = model.encode(TEXTS, precision="binary")
    assert signed.dtype == np.int8
    np.testing.assert_array_equal(signed.astype(int) + 128, packed)


def test_token_embeddings(model: Any) -> None:
    found = model.encode(TEXTS, output_value="token_embeddings", batch_size=2)
    for text, rows in zip(TEXTS, found, strict=True):
        ids = np.array(model.tokenizer.encode(text).ids)
        np.testing.assert_array_equal(rows, model._core.one("last_hidden_state", ids))
    single = model.encode(TEXTS[2], output_value="token_embeddings")
    np.testing.assert_array_equal(single, found[2])


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"precision": "float7"}, "'float7' is not known"),
        ({"output_value": "everything"}, "'everything' is not known"),
        ({"convert_to_numpy": False}, "numpy arrays"),
        ({"convert_to_tensor": True}, "numpy arrays"),
        ({"device": "cuda"}, "loaded on 'cpu'"),
        ({"device": np.zeros(2)}, "loaded on 'cpu'"),
        ({"precision": np.zeros(2)}, "precision .* is not known"),
        ({"output_value": np.zeros(2)}, "output_value .* is not known"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 1.5}, "batch_size is 1.5"),
        ({"batch_size": True}, "batch_size is True"),
        ({"prompt": 3}, "prompt: expected a text, got int"),
        ({"prompt_name": ["a"]}, "prompt_name .* is not known"),
        ({"truncate_dim": "8"}, "truncate_dim is '8', expected an integer of at least 1"),
        ({"truncate_dim": 2.0}, "truncate_dim is 2.0"),
        ({"truncate_dim": 0}, "truncate_dim is 0"),
        ({"precision": "int8", "ranges": "x"}, "ranges: "),
        ({"pool": {"input": 1}}, "pool and chunk_size: encode uses all threads by itself"),
        ({"chunk_size": 10}, "pool and chunk_size: encode uses all threads by itself"),
    ],
)
def test_options_that_cannot_be(model: Any, options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        model.encode(["text"], **options)
    assert model.encode("text", device="cpu").shape == (HIDDEN,)


@pytest.mark.parametrize("kind", ["cosine", "dot", "euclidean", "manhattan"])
def test_similarity(folder: Path, kind: str) -> None:
    model = make(Embedder, folder, sentence=config(similarity=kind))
    rng = np.random.RandomState(1)
    a, b = rng.standard_normal((3, 7)), rng.standard_normal((4, 7))
    difference = a[:, None] - b[None]
    wanted = {
        "cosine": a @ b.T / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1),
        "dot": a @ b.T,
        "euclidean": -np.sqrt((difference**2).sum(-1)),
        "manhattan": -np.abs(difference).sum(-1),
    }[kind]
    assert model.similarity_fn_name == kind
    found = model.similarity(a, b)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    np.testing.assert_allclose(model.similarity_pairwise(a, b[:3]), np.diag(wanted), atol=1e-5)
    np.testing.assert_allclose(model.similarity(a[0], b), wanted[:1], atol=1e-5)
    assert model.similarity(a[:0], b).shape == (0, 4)
    with pytest.raises(InputError, match="shapes"):
        model.similarity(a, b[:, :5])
    with pytest.raises(InputError, match="embeddings: "):
        model.similarity([10**400], a)
    with pytest.raises(InputError, match="expected equal"):
        model.similarity_pairwise(a, b)


def test_many_threads_one_model(model: Any) -> None:
    wanted = model.encode(TEXTS)
    wrong = []

    def work(seed: int) -> None:
        order = np.random.RandomState(seed).permutation(len(TEXTS))
        for _ in range(20):
            found = model.encode([TEXTS[i] for i in order])
            if not np.array_equal(found, wanted[order]):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_progress(model: Any, capsys: pytest.CaptureFixture[str]) -> None:
    model.encode(TEXTS, batch_size=2, show_progress_bar=True)
    assert "5/5" in capsys.readouterr().err
    model.encode(TEXTS)
    assert capsys.readouterr().err == ""


def test_closing(model: Any) -> None:
    core: FakeCore = model._core
    with model as same:
        assert same is model
        assert model.info()["architecture"] == "FakeModel"
        assert "FakeModel" in repr(model)
    assert core.closed
    with pytest.raises(InputError, match="closed"):
        model.encode("text")
    with pytest.raises(InputError, match="closed"):
        model.forward([[1]])
