# SPDX-License-Identifier: Apache-2.0
"""The server around its routes: errors, limits, keys, numbers, many requests at once."""

from __future__ import annotations

import http.client
import json
import logging
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from serving import WAIT, ask, eventually, example, listening, metric
from starlette.testclient import TestClient

from trine import DeviceError, InputError, ModelError
from trine.server import Settings, create_app
from trine.server.replies import numbers, to_json

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def model() -> Iterator[Any]:
    with example("classify", "embed") as model:
        yield model


@pytest.fixture(scope="module")
def client(model: Any) -> Iterator[TestClient]:
    with TestClient(create_app({"m": model})) as client:
        yield client


class Blocked:
    """Calls of a model wait until they are let go; the first one says that it has begun."""

    def __init__(self, model: Any, monkeypatch: pytest.MonkeyPatch, name: str = "encode") -> None:
        self.begun, self.go, self.calls = threading.Event(), threading.Event(), 0
        call = getattr(model, name)

        def blocked(*args: Any, **options: Any) -> Any:
            self.calls += 1
            self.begun.set()
            assert self.go.wait(WAIT)
            return call(*args, **options)

        monkeypatch.setattr(model, name, blocked)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "inputs: Field required"),
        ({"inputs": None}, "inputs: Field required"),
        ({"inputs": [1, "a"]}, "inputs: item 0: expected a text or token ids"),
        ({"inputs": [True]}, "inputs: item 0"),
        ({"inputs": [1.5]}, "inputs: item 0"),
        ({"inputs": ["a", [5]]}, "texts and token ids are mixed"),
        ({"inputs": [[10**6]]}, "1000000"),
        ({"inputs": [10**30]}, "expected integers"),
        ({"inputs": [0] * 41}, "inputs.0 has 41 tokens, the limit is 40"),
        ({"inputs": "a", "dimensions": 33}, "dimensions is 33; the model has 32"),
        ({"inputs": "a", "dimensions": 0}, "dimensions"),
        ({"inputs": "a", "truncation_direction": "up"}, "truncation_direction"),
        ({"inputs": "a", "prompt_name": "x"}, "prompt_name 'x' is not known"),
        ([1], "the body"),
    ],
)
def test_wrong_inputs(client: TestClient, body: Any, message: str) -> None:
    answer = client.post("/embed", json=body)
    assert answer.status_code == 422
    assert set(answer.json()) == {"error", "error_type"}
    assert message in answer.json()["error"]
    assert answer.json()["error_type"] == "Validation"


@pytest.mark.parametrize("template", ["{:>999999999}", "no place", "{} {}", "{0}", "{{}}", "{}}}"])
def test_templates_are_no_programs(template: str) -> None:
    with example("entail") as judge, TestClient(create_app({"m": judge})) as client:
        body = {"inputs": "a", "labels": ["b"], "hypothesis_template": template}
        answer = client.post("/zero_shot", json=body)
        assert answer.status_code == 422
        assert "expected a text with one {}" in answer.json()["error"]


def test_half_a_character(client: TestClient) -> None:
    for text in ('{"inputs": "a\\ud800"}', '{"inputs": "a", "model": "\\ud800"}'):
        answer = client.post("/embed", content=text, headers={"content-type": "application/json"})
        assert answer.status_code in (404, 422)
        assert answer.json()["error"]


def test_errors_of_openai_routes(client: TestClient) -> None:
    answer = client.post("/v1/embeddings", json={"input": [[10**6]]})
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert "1000000" in error["message"]
    answer = client.post("/v1/embeddings", json={"input": "a", "model": "other"})
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"
    answer = client.post("/v1/nothing", json={})
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"
    assert client.post("/v1/embeddings", json={"input": []}).status_code == 400


def test_bodies_that_are_no_json(client: TestClient) -> None:
    kind = {"content-type": "application/json"}
    for content in (b"{", b"\xff", b"[" * 100000, b'{"inputs": ' + b"9" * 5000 + b"}"):
        answer = client.post("/embed", content=content, headers=kind)
        assert answer.status_code in (400, 422)
        assert answer.json()["error"]
    # What a web page may send without asking is not taken.
    for kind in ({}, {"content-type": "text/plain"}):
        answer = client.post("/embed", content=b'{"inputs": "a"}', headers=kind)
        assert answer.status_code == 415
    assert client.get("/embed").status_code == 405
    empty = client.post("/embed", json={"inputs": []}).json()
    assert empty["error_type"] == "Empty"


@pytest.mark.parametrize(
    "case",  # of TEI's routes, of OpenAI's
    [
        (InputError("said so"), 422, 422),
        (ModelError("said so"), 424, 500),
        (DeviceError("said so"), 500, 500),
        (RuntimeError("secret"), 500, 500),
        (MemoryError("secret"), 500, 500),
    ],
)
def test_errors_of_models(
    model: Any,
    client: TestClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    case: tuple[Exception, int, int],
) -> None:
    error, tei, openai = case

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(model, "encode", fail)
    for path, field, status in (("/embed", "inputs", tei), ("/v1/embeddings", "input", openai)):
        answer = client.post(path, json={field: "a"})
        assert answer.status_code == status
        assert ("said so" in answer.text) == ("said so" in str(error))
        assert "secret" not in answer.text + caplog.text
        assert "Traceback" not in answer.text
    if "secret" in str(error):  # where it happened is in the log
        assert type(error).__name__ in caplog.text
        assert "in fail" in caplog.text


def test_numbers_are_finite(
    model: Any, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "encode", lambda *_, **__: np.full((1, 4), np.nan, np.float32))
    for path, body in (
        ("/embed", {"inputs": "a"}),
        ("/v1/embeddings", {"input": "a"}),
        ("/v1/embeddings", {"input": "a", "encoding_format": "base64"}),
    ):
        answer = client.post(path, json=body)
        assert answer.status_code in (424, 500)
        assert "no number" in answer.text
    with pytest.raises(ModelError):
        to_json([float("inf")])


def test_every_float32_survives() -> None:
    bits = np.random.default_rng(5).integers(0, 2**32, 20000, np.uint64).astype(np.uint32)
    values = bits.view(np.float32)
    values = np.concatenate([values[np.isfinite(values)], np.float32([0, -0.0, 1, 1e-45, 3.4e38])])
    read = np.array(json.loads(numbers(values)), np.float32)
    np.testing.assert_array_equal(read.view(np.uint32), values.view(np.uint32))


def test_key(model: Any) -> None:
    with TestClient(create_app({"m": model}, Settings(api_key="kéy"))) as client:
        for path in ("/health", "/", "/ping", "/metrics", "/docs", "/openapi.json"):
            assert client.get(path).status_code == 200
        key = "kéy".encode()
        wrong = ({}, {"authorization": "Bearer no"}, {"authorization": b"Basic " + key})
        for headers in wrong:
            answer = client.post("/embed", json={"inputs": "a"}, headers=headers)
            assert answer.status_code == 401
            assert answer.json()["error_type"] == "Unauthorized"
            assert client.get("/info", headers=headers).status_code == 401
            answer = client.get("/v1/models", headers=headers)
            assert answer.json()["error"]["code"] == "invalid_api_key"
        for headers in ({"authorization": b"bearer " + key}, {"x-api-key": key}):
            answer = client.post("/embed", json={"inputs": "a"}, headers=headers)
            assert answer.status_code == 200


def test_limits(model: Any) -> None:
    limits = Settings(max_client_batch_size=2, payload_limit=200)
    with TestClient(create_app({"m": model}, limits)) as client:
        assert client.post("/embed", json={"inputs": ["a", "b"]}).status_code == 200
        for path, body in (
            ("/embed", {"inputs": ["a"] * 3}),
            ("/tokenize", {"inputs": ["a"] * 3}),
            ("/embed", {"inputs": "a" * 200}),
        ):
            answer = client.post(path, json=body)
            assert answer.status_code == 413
            assert answer.json()["error_type"] == "Validation"
        answer = client.post("/v1/embeddings", json={"input": ["a"] * 3})
        assert answer.status_code == 413
        assert answer.json()["error"]["code"] == "request_too_large"

        def pieces() -> Iterator[bytes]:  # a length that isn't told
            yield b'{"inputs": "'
            for _ in range(10):
                yield b"a" * 100
            yield b'"}'

        kind = {"content-type": "application/json"}
        assert client.post("/embed", content=pieces(), headers=kind).status_code == 413
    with pytest.raises(InputError, match="payload_limit"):
        Settings(payload_limit=0)
    with pytest.raises(InputError, match="at least one model"):
        create_app({})


def test_a_limit_of_tokens_holds_for_ids(client: TestClient, model: Any) -> None:
    before = model.max_seq_length
    model.max_seq_length = 10
    try:
        for path, field in (("/embed", "inputs"), ("/v1/embeddings", "input")):
            assert client.post(path, json={field: [0] * 10}).status_code == 200
            assert client.post(path, json={field: [[0], [0] * 11]}).status_code == 422
    finally:
        model.max_seq_length = before


def test_no_truncation_by_default(model: Any) -> None:
    text = "the " * 60
    with TestClient(create_app({"m": model}, Settings(auto_truncate=False))) as client:
        assert client.post("/embed", json={"inputs": text}).status_code == 422
        assert client.post("/v1/embeddings", json={"input": text}).status_code == 422
        assert client.post("/embed", json={"inputs": text, "truncate": True}).status_code == 200


def test_overload(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = Blocked(model, monkeypatch)
    limits = {"max_concurrent_requests": 1}
    with listening({"m": model}, **limits) as address, ThreadPoolExecutor(1) as pool:
        first = pool.submit(ask, address, "/embed", {"inputs": "a"})
        assert blocked.begun.wait(WAIT)
        status, body = ask(address, "/embed", {"inputs": "a"})
        assert (status, body["error_type"]) == (429, "Overloaded")
        status, body = ask(address, "/v1/embeddings", {"input": "a"})
        assert (status, body["error"]["code"]) == (429, "overloaded")
        connection = http.client.HTTPConnection(*address, timeout=WAIT)
        connection.request(
            "POST", "/embed", b'{"inputs": "a"}', {"Content-Type": "application/json"}
        )
        assert connection.getresponse().headers["Retry-After"] == "1"
        connection.close()
        assert ask(address, "/health")[0] == 200  # the loop is free
        assert metric(ask(address, "/metrics")[1], "trine_requests_in_flight") == 1
        blocked.go.set()
        assert first.result(WAIT)[0] == 200
        eventually(lambda: ask(address, "/embed", {"inputs": "a"})[0] == 200)


def test_shutdown_finishes_what_runs(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = Blocked(model, monkeypatch)
    with ThreadPoolExecutor(1) as pool:
        with listening({"m": model}) as address:
            first = pool.submit(ask, address, "/embed", {"inputs": "a"})
            assert blocked.begun.wait(WAIT)
            threading.Timer(0.3, blocked.go.set).start()
        assert first.result(WAIT)[0] == 200


def test_a_client_that_leaves_takes_its_waiting_call_along(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trine.server.work._MOST_THREADS", 1)
    blocked = Blocked(model, monkeypatch)
    with listening({"m": model}) as address, ThreadPoolExecutor(1) as pool:
        first = pool.submit(ask, address, "/embed", {"inputs": "a"})
        assert blocked.begun.wait(WAIT)
        body = b'{"inputs": "b"}'
        with socket.create_connection(address, WAIT) as client:
            head = "POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            eventually(lambda: metric(ask(address, "/metrics")[1], "trine_queue_size") == 1)
        eventually(lambda: metric(ask(address, "/metrics")[1], "trine_queue_size") == 0)
        blocked.go.set()
        assert first.result(WAIT)[0] == 200
        assert blocked.calls == 1
        left = 'trine_requests_total{route="/embed",status="499"}'
        assert metric(ask(address, "/metrics")[1], left) == 1


def test_many_at_once_get_the_same_bits(model: Any) -> None:
    texts = [f"the film number {i} was {'very ' * (i % 9)}great" for i in range(60)]
    wanted = [model.encode([text], normalize_embeddings=True) for text in texts]
    with listening({"m": model}) as address, ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda text: ask(address, "/embed", {"inputs": text}), texts))
        text = ask(address, "/metrics")[1]
    for (status, got), vector in zip(answers, wanted, strict=True):
        assert status == 200
        np.testing.assert_array_equal(np.array(got, np.float32), vector)
    assert metric(text, 'trine_requests_total{route="/embed",status="200"}') == len(texts)


def test_metrics_count_once(model: Any) -> None:
    with TestClient(create_app({"m": model})) as client:
        texts = ["a film", "the " * 60]
        assert client.post("/embed", json={"inputs": texts}).status_code == 200
        assert client.post("/embed", json={"inputs": []}).status_code == 400
        client.post("/no/such/route", json={})
        text = client.get("/metrics").text
        for line, wanted in (
            ('trine_requests_total{route="/embed",status="200"}', 1),
            ('trine_requests_total{route="/embed",status="400"}', 1),
            ('trine_requests_total{route="other",status="404"}', 1),
            ('trine_request_duration_seconds_count{route="/embed"}', 2),
            ('trine_model_duration_seconds_count{model="m"}', 1),
            ('trine_input_tokens_total{model="m"}', len(model.tokenize(texts).ids)),
            ('trine_truncated_inputs_total{model="m"}', 1),
            ("trine_requests_in_flight", 0),
            ("trine_queue_size", 0),
        ):
            assert metric(text, line) == wanted, line
        assert 0 < metric(text, 'trine_model_duration_seconds_sum{model="m"}') < WAIT
        assert "/no/such/route" not in text


def test_log_has_a_line_a_request_and_nothing_of_its_content(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trine.server")
    client.post("/embed?private=1", json={"inputs": "private"})
    client.get("/v1/models/a%0Ab")
    first, second = [record.getMessage() for record in caplog.records]
    assert first.startswith("POST /embed 200 ")
    assert first.endswith(" ms")
    assert second.startswith("GET /v1/models/a%0Ab 404 ")
    assert "private" not in caplog.text


def test_pages_of_other_origins(model: Any) -> None:
    asked = {"origin": "https://a.example", "access-control-request-method": "POST"}
    with TestClient(create_app({"m": model})) as client:
        assert "access-control-allow-origin" not in client.options("/embed", headers=asked).headers
    limits = Settings(cors_allow_origin=("https://a.example",), api_key="k")
    with TestClient(create_app({"m": model}, limits)) as client:
        answer = client.options("/embed", headers=asked)
        assert answer.headers["access-control-allow-origin"] == "https://a.example"
        other = client.options("/embed", headers={**asked, "origin": "https://b.example"})
        assert "access-control-allow-origin" not in other.headers


def test_behind_a_proxy(model: Any) -> None:
    limits = Settings(root_path="/models", api_key="k")
    with TestClient(create_app({"m": model}, limits)) as client:
        for prefix in ("", "/models"):  # one that strips its path, one that doesn't
            assert client.get(f"{prefix}/health").status_code == 200
            answer = client.get(f"{prefix}/v1/models")
            assert answer.json()["error"]["type"] == "authentication_error"
            answer = client.get(f"{prefix}/v1/models", headers={"x-api-key": "k"})
            assert answer.status_code == 200


def test_large_answers_are_refused_beforehand(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trine.server.embedding_routes._MOST_VALUES", 32 * 40)
    assert client.post("/embed_all", json={"inputs": "a " * 200}).status_code == 200
    assert client.post("/embed_all", json={"inputs": ["a " * 200] * 2}).status_code == 413


def test_without_a_tokenizer(tmp_path: Any) -> None:
    import shutil

    from serving import EXAMPLES

    import trine

    folder = tmp_path / "bare"
    shutil.copytree(EXAMPLES / "classify", folder, ignore=shutil.ignore_patterns("tokenizer*"))
    with trine.load(folder, task="embed") as model, TestClient(create_app({"m": model})) as client:
        wanted = model.encode([[0, 5, 2]], normalize_embeddings=True)
        got = client.post("/embed", json={"inputs": [0, 5, 2]}).json()
        np.testing.assert_array_equal(np.array(got, np.float32), wanted)
        for path in ("/embed", "/tokenize"):
            answer = client.post(path, json={"inputs": "a"})
            assert answer.status_code == 424
            assert answer.json()["error_type"] == "Backend"
        assert client.get("/info").status_code == 200
