# SPDX-License-Identifier: Apache-2.0
"""What the server answers on each route of encoders: what the Python API gives."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from serving import EXAMPLES, example
from starlette.testclient import TestClient

from trine.server import create_app

if TYPE_CHECKING:
    from collections.abc import Iterator

TEXTS = ["A great film.", "The cast was not funny!"]
LONG = "the film was great and " * 40


@pytest.fixture(scope="module")
def models() -> Iterator[dict[str, Any]]:
    names = ("classify", "tag", "ask", "fill", "choose", "entail", "rank")
    loaded = {name: example(name) for name in names}
    loaded["embed"] = example("classify", "embed")
    yield loaded
    for model in loaded.values():
        model.close()


@pytest.fixture(scope="module")
def client(models: dict[str, Any]) -> Iterator[TestClient]:
    with TestClient(create_app(models)) as client:
        yield client


def post(client: TestClient, path: str, **body: Any) -> Any:
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def assert_same_bits(got: Any, wanted: np.ndarray[Any, Any]) -> None:
    np.testing.assert_array_equal(np.array(got, np.float32), wanted, strict=True)


def test_embed(client: TestClient, models: dict[str, Any]) -> None:
    model = models["embed"]
    wanted = model.encode(TEXTS, normalize_embeddings=True)
    assert_same_bits(post(client, "/embed", inputs=TEXTS), wanted)
    assert_same_bits(post(client, "/embed", inputs=TEXTS[0]), wanted[:1])
    plain = post(client, "/embed", inputs=TEXTS, normalize=False, dimensions=5)
    assert_same_bits(plain, model.encode(TEXTS, truncate_dim=5))
    ids = [row.tolist() for row in model.tokenize(TEXTS)]
    assert_same_bits(post(client, "/embed", inputs=ids), wanted)
    assert_same_bits(post(client, "/embed", inputs=ids[0]), wanted[:1])


def test_ids_are_run_as_they_are(client: TestClient, models: dict[str, Any]) -> None:
    """Special tokens in odd places, which decoding and encoding again would change."""
    ids = [7, 0, 2, 9, 2]
    wanted = models["embed"].encode([ids], normalize_embeddings=True)
    assert_same_bits(post(client, "/embed", inputs=ids), wanted)
    assert_same_bits(post(client, "/v1/embeddings", input=ids)["data"][0]["embedding"], wanted[0])


def test_truncation(client: TestClient, models: dict[str, Any]) -> None:
    model = models["embed"]
    for side in ("left", "Right"):
        wanted = model.encode([LONG], normalize_embeddings=True, truncation_side=side.lower())
        got = post(client, "/embed", inputs=LONG, truncation_direction=side)
        assert_same_bits(got, wanted)
    left, right = (model.encode(LONG, truncation_side=side) for side in ("left", "right"))
    assert np.abs(left - right).max() > 1e-3
    for path, body in (
        ("/embed", {"inputs": LONG}),
        ("/embed_all", {"inputs": LONG}),
        ("/predict", {"inputs": LONG}),
        ("/predict", {"inputs": f"<mask> {LONG}", "model": "fill"}),
        ("/predict", {"inputs": {"prompt": LONG, "choices": ["a"]}, "model": "choose"}),
        ("/rerank", {"query": "the", "texts": [LONG]}),
        ("/zero_shot", {"inputs": LONG, "labels": ["a"], "model": "entail"}),
    ):
        answer = client.post(path, json={"truncate": False, **body})
        assert answer.status_code == 422
        assert "truncate=True" in answer.json()["error"]
        assert client.post(path, json=body).status_code == 200


def test_embed_all(client: TestClient, models: dict[str, Any]) -> None:
    wanted = models["embed"].encode(TEXTS, output_value="token_embeddings")
    got = post(client, "/embed_all", inputs=TEXTS)
    assert len(got) == 2
    for rows, vectors in zip(got, wanted, strict=True):
        assert_same_bits(rows, vectors)


def test_similarity(client: TestClient, models: dict[str, Any]) -> None:
    model = models["embed"]
    vectors = model.encode(["a film", *TEXTS])
    wanted = model.similarity_pairwise(vectors[[0, 0]], vectors[1:])
    inputs = {"source_sentence": "a film", "sentences": TEXTS}
    got = post(client, "/similarity", inputs=inputs, parameters={"truncate": True})
    assert_same_bits(got, wanted)
    # Nothing else in the request changes a score.
    one = post(client, "/similarity", inputs={**inputs, "sentences": TEXTS[1:]})
    assert one == got[1:]


def test_openai_embeddings(client: TestClient, models: dict[str, Any]) -> None:
    model = models["embed"]
    wanted = model.encode(TEXTS, normalize_embeddings=True, truncate_dim=6)
    body = {"input": TEXTS, "model": "embed", "user": "u", "dimensions": 6}
    for path in ("/v1/embeddings", "/embeddings"):
        got = post(client, path, **body)
        assert (got["object"], got["model"]) == ("list", "embed")
        assert [row["index"] for row in got["data"]] == [0, 1]
        assert all(row["object"] == "embedding" for row in got["data"])
        assert_same_bits([row["embedding"] for row in got["data"]], wanted)
        count = len(model.tokenize(TEXTS).ids)
        assert got["usage"] == {"prompt_tokens": count, "total_tokens": count}
    coded = post(client, "/v1/embeddings", encoding_format="base64", **body)
    for row, vector in zip(coded["data"], wanted, strict=True):
        assert base64.b64decode(row["embedding"]) == vector.astype("<f4").tobytes()


def test_classify(client: TestClient, models: dict[str, Any]) -> None:
    model = models["classify"]
    assert post(client, "/predict", inputs=TEXTS[0]) == model.predict(TEXTS[0])
    assert post(client, "/predict", inputs=TEXTS[:1]) == model.predict(TEXTS[0])
    assert post(client, "/predict", inputs=TEXTS) == model.predict(tuple(TEXTS))  # a pair
    batch = [[TEXTS[0]], [TEXTS[1], "a"]]
    wanted = model.predict([TEXTS[0], (TEXTS[1], "a")])
    assert post(client, "/predict", inputs=batch) == wanted
    raw = model.predict([TEXTS[0]], function_to_apply="none", top_k=1)
    assert post(client, "/predict", inputs=[[TEXTS[0]]], raw_scores=True, top_k=1) == raw
    answer = client.post("/predict", json={"inputs": ["a", "b", "c"]})
    assert answer.status_code == 422
    assert "many are [[text]" in answer.json()["error"]


def test_scores_follow_the_problem_type(tmp_path: Any) -> None:
    """A model of several independent labels has sigmoids, which need not add up to one."""
    import json
    import shutil

    import trine

    folder = tmp_path / "labels"
    shutil.copytree(EXAMPLES / "classify", folder)
    config = json.loads((folder / "config.json").read_text())
    config["problem_type"] = "multi_label_classification"
    (folder / "config.json").write_text(json.dumps(config))
    with trine.load(folder) as model, TestClient(create_app({"m": model})) as client:
        logits = {x["label"]: x["score"] for x in model.predict("a", function_to_apply="none")}
        got = post(client, "/predict", inputs="a")
        for row in got:
            wanted = 1 / (1 + np.exp(-logits[row["label"]]))
            assert row["score"] == pytest.approx(wanted, rel=1e-5)


def test_zero_shot(client: TestClient, models: dict[str, Any]) -> None:
    model, labels = models["entail"], ["politics", "sports"]
    text = "The team was long."
    assert post(client, "/zero_shot", inputs=text, labels=labels, model="entail") == (
        model.zero_shot(text, labels)
    )
    options = {"multi_label": True, "hypothesis_template": "It is {}."}
    got = post(client, "/zero_shot", inputs=[text], labels=labels, model="entail", **options)
    assert got == model.zero_shot([text], labels, **options)


def test_rerank(client: TestClient, models: dict[str, Any]) -> None:
    model, query = models["rank"], "Where is the harp?"
    documents = ["In Rome.", "The harp is in Oslo.", "It rains."]
    wanted = model.rank(query, documents)
    got = post(client, "/rerank", query=query, texts=documents, return_text=True)
    assert got == [
        {"index": x["corpus_id"], "score": x["score"], "text": documents[x["corpus_id"]]}
        for x in wanted
    ]
    raw = post(client, "/rerank", query=query, texts=documents, raw_scores=True)
    assert [x["index"] for x in raw] == [x["index"] for x in got]
    for row, scored in zip(raw, got, strict=True):
        assert 1 / (1 + np.exp(-row["score"])) == pytest.approx(scored["score"], rel=1e-5)
    for path in ("/v1/rerank", "/v2/rerank"):
        body = {"query": query, "documents": [documents[0], {"text": documents[1]}, documents[2]]}
        found = post(client, path, model="rank", top_n=2, return_documents=True, **body)
        assert found["results"] == [
            {
                "index": x["corpus_id"],
                "relevance_score": x["score"],
                "document": {"text": documents[x["corpus_id"]]},
            }
            for x in wanted[:2]
        ]
        assert found["model"] == "rank"
        assert found["usage"]["total_tokens"] > 0
        assert "document" not in post(client, path, **body)["results"][0]
    wrong = client.post("/rerank", json={"query": "q", "texts": ["a"], "model": "classify"})
    assert wrong.status_code == 422
    assert "one label" in wrong.json()["error"]


def test_other_tasks(client: TestClient, models: dict[str, Any]) -> None:
    text = "Ada Lovelace lives in Rome."
    model = models["tag"]
    assert post(client, "/predict", inputs=text, model="tag") == model.predict(text)
    got = post(client, "/predict", inputs=[text, "x"], model="tag", aggregation="none")
    assert got == model.predict([text, "x"], aggregation="none")

    model, question = models["ask"], {"question": "Who plays the harp?", "context": text}
    assert post(client, "/predict", inputs=question, model="ask") == (
        model.predict(question, top_k=1)
    )
    got = post(client, "/predict", inputs=[question], model="ask", top_k=2, max_answer_len=2)
    assert got == model.predict([question], top_k=2, max_answer_len=2)
    pair = list(question.values())
    assert post(client, "/predict", inputs=pair, model="ask") == model.predict(question, top_k=1)

    model, masked = models["fill"], "<mask> is the capital of Norway."
    assert post(client, "/predict", inputs=masked, model="fill") == model.predict(masked)
    got = post(client, "/predict", inputs=[masked], model="fill", top_k=1, targets=["oslo"])
    assert got == model.predict([masked], top_k=1, targets=["oslo"])

    model, choices = models["choose"], ["a lamp", "an umbrella"]
    body = {"prompt": "It rains, so Grace takes", "choices": choices}
    wanted = model.predict((body["prompt"], choices))
    assert post(client, "/predict", inputs=body, model="choose") == wanted
    assert post(client, "/predict", inputs=[[body["prompt"], choices]], model="choose") == [wanted]


def test_options_of_another_task_are_mistakes(client: TestClient) -> None:
    for name, option in (("tag", {"raw_scores": True}), ("classify", {"aggregation": "none"})):
        answer = client.post("/predict", json={"inputs": "a", "model": name, **option})
        assert answer.status_code == 422
        assert next(iter(option)) in answer.json()["error"]


def test_tokenize_and_decode(client: TestClient, models: dict[str, Any]) -> None:
    model = models["classify"]
    (tokens,) = post(client, "/tokenize", inputs=TEXTS[0])
    assert [x["id"] for x in tokens] == model.tokenize(TEXTS[:1])[0].tolist()
    assert tokens[0] == {"id": 0, "text": "<s>", "special": True, "start": None, "stop": None}
    plain = post(client, "/tokenize", inputs=TEXTS, add_special_tokens=False)
    assert [x["id"] for x in plain[0]] == [x["id"] for x in tokens[1:-1]]
    for token in plain[1]:
        assert token["text"] == TEXTS[1][token["start"] : token["stop"]]
    ids = [x["id"] for x in tokens]
    assert post(client, "/decode", ids=ids) == [model.tokenizer.decode(ids)]
    both = post(client, "/decode", ids=[ids, []], skip_special_tokens=False)
    assert both == [model.tokenizer.decode(ids, skip_special_tokens=False), ""]
    assert client.post("/decode", json={"ids": [10**6]}).status_code == 422


def test_prompts(tmp_path: Any) -> None:
    import json
    import shutil

    import trine

    folder = tmp_path / "prompts"
    shutil.copytree(EXAMPLES / "classify", folder)
    prompts = {"prompts": {"query": "film: "}}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    (folder / "modules.json").write_text(
        json.dumps(
            [
                {"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
                {"idx": 1, "path": "1", "type": "sentence_transformers.models.Pooling"},
            ]
        )
    )
    (folder / "1").mkdir()
    pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
    (folder / "1" / "config.json").write_text(json.dumps(pooling))
    with trine.load(folder, task="embed") as model, TestClient(create_app({"m": model})) as client:
        wanted = model.encode(["a"], prompt_name="query", normalize_embeddings=True)
        assert_same_bits(post(client, "/embed", inputs="a", prompt_name="query"), wanted)
        (tokens,) = post(client, "/tokenize", inputs="a", prompt_name="query")
        assert [x["id"] for x in tokens] == model.tokenize(["film: a"])[0].tolist()
        for path in ("/embed", "/tokenize"):
            answer = client.post(path, json={"inputs": "a", "prompt_name": "none"})
            assert answer.status_code == 422
            assert "prompt_name 'none'" in answer.json()["error"]


def test_description(client: TestClient, models: dict[str, Any]) -> None:
    for path in ("/", "/health", "/ping"):
        assert client.get(path).json() == {"status": "ok"}
    info = client.get("/info").json()
    assert info["model_id"] == "classify"
    assert info["model_type"]["classifier"]["id2label"] == {"0": "negative", "1": "positive"}
    assert info["max_input_length"] == models["classify"].max_seq_length
    assert {x["id"] for x in info["models"]} == set(models)
    assert str(EXAMPLES) not in str(info)  # folders are nobody's business
    embedding = client.get("/info", params={"model": "embed"}).json()["model_type"]["embedding"]
    assert embedding == {"pooling": "mean", "dimension": 32}
    assert "reranker" in client.get("/info", params={"model": "rank"}).json()["model_type"]
    assert client.get("/info", params={"model": "fill"}).json()["model_type"] == {"filler": {}}
    listed = client.get("/v1/models").json()
    assert [x["id"] for x in listed["data"]] == list(models)
    assert client.get("/v1/models/tag").json() == listed["data"][1]
    assert client.get("/docs").status_code == 200


def test_aliases_are_of_the_first_model(models: dict[str, Any]) -> None:
    query = {"query": "a", "texts": ["b"]}
    forms = {"embed": {"inputs": "a"}, "tag": {"inputs": "a"}, "rank": query}
    for (name, body), path in zip(forms.items(), ("/embed", "/predict", "/rerank"), strict=True):
        with TestClient(create_app({name: models[name], **models})) as client:
            wanted = post(client, path, model=name, **body)
            assert post(client, "/", **body) == post(client, "/invocations", **body) == wanted


def test_routes_are_those_of_the_tasks(models: dict[str, Any]) -> None:
    with TestClient(create_app({"a/b": models["tag"], "c": models["choose"]})) as client:
        paths = set(client.get("/openapi.json").json()["paths"])
        assert {"/predict", "/tokenize", "/decode"} <= paths
        assert not paths & {"/embed", "/rerank", "/v1/chat/completions"}
        assert client.get("/v1/models/a/b").json()["id"] == "a/b"
        assert client.post("/embed", json={"inputs": "a"}).status_code == 404
    with TestClient(create_app({"a": models["tag"], "b": models["embed"]})) as client:
        assert client.post("/embed", json={"inputs": "a"}).status_code == 200  # b can, a can't
        for path, name, needed in (("/embed", "a", "Embedder"), ("/predict", "b", "/predict")):
            answer = client.post(path, json={"inputs": "a", "model": name})
            assert answer.status_code == 422
            assert needed in answer.json()["error"]
