# SPDX-License-Identifier: Apache-2.0
"""What clients do to a server: they leave, stall, ask too much, and send what nobody expects."""

from __future__ import annotations

import asyncio
import gc
import http.client
import json
import logging
import socket
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from serving import EXAMPLES, WAIT, ask, eventually, example, listening, metric
from starlette.testclient import TestClient

from trine import InputError, ModelError
from trine.server import Settings, create_app
from trine.server.metrics import Metrics
from trine.server.streams import EventStream
from trine.server.work import Worker
from trine.tally import CancelledError, tallied

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"


@pytest.fixture(scope="module")
def embedder() -> Iterator[Any]:
    with example("classify", "embed") as model:
        yield model


@pytest.fixture(scope="module")
def generator() -> Iterator[Any]:
    with example("chat") as model:
        yield model


def test_a_long_text_is_encoded_as_a_short_one(embedder: Any) -> None:
    encoder, text = embedder._encoder, "The film was not great. " * 1500
    assert len(text) > 20_000
    for pair in ((text, None), ("A question", text)):
        for special in (True, False):
            short = encoder.backend.encode(*pair, add_special_tokens=special)
            found = encoder.encoding(*pair, special=special)
            assert found.ids == short.ids
            assert found.offsets == short.offsets
            assert found.special_tokens_mask == short.special_tokens_mask
    with pytest.raises(InputError, match="input 0 has half of a surrogate pair"):
        embedder.encode([text + "\ud800"])


def test_an_unknown_side_is_refused(embedder: Any) -> None:
    for side in ("up", 3):
        with pytest.raises(InputError, match="truncation_side"):
            embedder.encode(["short"], truncation_side=side)


def test_answers_are_bounded(embedder: Any) -> None:
    with (
        example("fill") as filler,
        TestClient(create_app({"m": embedder, "fill": filler})) as client,
    ):
        body: dict[str, Any] = {"inputs": ["a " * 100_000] * 2}
        assert client.post("/tokenize", json=body).status_code == 413
        body = {"model": "fill", "inputs": ["<mask> " * 30] * 40, "top_k": 100}
        assert client.post("/predict", json=body).status_code == 413
        body["top_k"] = 1
        assert client.post("/predict", json=body).status_code == 200
        half = json.dumps({"inputs": ["ok", "half \ud800"]})
        kind = {"content-type": "application/json"}
        answer = client.post("/tokenize", content=half, headers=kind)
        assert (answer.status_code, "inputs.1" in answer.text) == (422, True)


def test_a_call_that_is_cancelled_keeps_no_inputs() -> None:
    class Inputs:
        pass

    worker, go = Worker(2, Metrics()), threading.Event()
    worker.threads = 1
    first = worker.submit("m", lambda: go.wait(WAIT))
    inputs = Inputs()
    known = weakref.ref(inputs)
    waiting = worker.submit("m", lambda inputs=inputs: inputs)  # type: ignore[misc]
    del inputs
    assert waiting.cancel()
    gc.collect()
    assert known() is None
    go.set()
    assert first.result(WAIT)[0]
    worker.close()
    assert worker.submit("m", lambda: 5).result(WAIT)[0] == 5  # it can be started again
    worker.close()


def test_an_encoder_stops_between_runs(embedder: Any) -> None:
    gone = threading.Event()
    with tallied(gone):
        embedder.encode(["a"])
        gone.set()
        with pytest.raises(CancelledError):
            embedder.encode(["a"])
    embedder.encode(["a"])


def send(address: tuple[str, int], path: str, body: Any) -> socket.socket:
    client = socket.create_connection(address, WAIT)
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    client.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
    return client


def test_a_stream_that_waits_gives_its_place_back(
    generator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trine.server.work._MOST_THREADS", 1)
    begun, go = threading.Event(), threading.Event()
    generate = generator.generate

    def blocked(*args: Any, **options: Any) -> Any:
        begun.set()
        assert go.wait(WAIT)
        return generate(*args, **options)

    monkeypatch.setattr(generator, "generate", blocked)
    with listening({"m": generator}) as address, ThreadPoolExecutor(1) as pool:
        first = pool.submit(ask, address, COMPLETIONS, {"prompt": "The"})
        assert begun.wait(WAIT)
        with send(address, COMPLETIONS, {"prompt": "The", "stream": True}):
            eventually(lambda: metric(ask(address, "/metrics")[1], "trine_queue_size") == 1)
        eventually(lambda: metric(ask(address, "/metrics")[1], "trine_requests_in_flight") == 1)
        go.set()
        assert first.result(WAIT)[0] == 200


def test_a_stream_waits_for_its_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trine.server.streams._MOST_PIECES", 3)
    monkeypatch.setattr("trine.server.streams._PATIENCE", 0.05)

    async def fill() -> tuple[bool, int]:
        stream = EventStream()
        done = threading.Event()

        def emit() -> None:
            for _ in range(10):
                stream.emit(b"x")
            done.set()

        thread = threading.Thread(target=emit)
        thread.start()
        await asyncio.to_thread(done.wait, WAIT)
        await asyncio.sleep(0)
        thread.join()
        return stream.cancel.is_set(), stream._pieces.qsize()

    assert asyncio.run(fill()) == (True, 3)


def test_a_failure_in_the_middle_is_logged_and_counted(
    generator: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stream, words = generator.stream, "a secret"  # elsewhere than in a line of the traceback

    class Failing:
        def __init__(self, *args: Any, **options: Any) -> None:
            self.pieces = stream(*args, **options)

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            self.pieces.close()

        def __iter__(self) -> Iterator[str]:
            yield next(iter(self.pieces))
            raise RuntimeError(words)

        @property
        def result(self) -> Any:
            return self.pieces.result

    monkeypatch.setattr(generator, "stream", Failing)
    logging.getLogger("trine.server").propagate = True
    with TestClient(create_app({"m": generator})) as client, caplog.at_level(logging.INFO):
        answer = client.post(COMPLETIONS, json={"prompt": "The", "stream": True})
        text = client.get("/metrics").text
    assert "the server failed" in answer.text
    assert "RuntimeError" in caplog.text
    assert "a secret" not in answer.text + caplog.text
    assert metric(text, f'trine_requests_total{{route="{COMPLETIONS}",status="500"}}') == 1


def test_prompts_count_once(generator: Any) -> None:
    with TestClient(create_app({"m": generator})) as client:
        one, three = (
            client.post(COMPLETIONS, json={"prompt": "The capital", "n": n}).json()["usage"]
            for n in (1, 3)
        )
    assert three["prompt_tokens"] == one["prompt_tokens"] > 0
    assert three["completion_tokens"] == 3 * one["completion_tokens"]
    assert three["total_tokens"] == three["prompt_tokens"] + three["completion_tokens"]


def test_mistakes_of_clients_are_not_the_models(
    generator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        example("classify") as classifier,
        TestClient(create_app({"c": classifier, "g": generator})) as client,
    ):
        answer = client.post("/zero_shot", json={"inputs": "a", "labels": ["b"]})
        assert (answer.status_code, "entailment" in answer.text) == (422, True)
        say = [{"role": "user", "content": "a"}]
        for message in (
            {"role": "tool", "content": "a"},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
        ):
            answer = client.post(CHAT, json={"messages": [*say, message]})
            assert (answer.status_code, "tools" in answer.text) == (422, True)
        monkeypatch.setattr(type(generator), "has_chat_template", False)
        answer = client.post(CHAT, json={"messages": say})
        assert (answer.status_code, "chat template" in answer.text) == (422, True)


def test_folders_stay_private(embedder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    where = EXAMPLES / "rank" / "model.safetensors"
    errors = [
        (f'{where}: tensor "x" holds a NaN', 'model.safetensors: tensor "x" holds a NaN'),
        ("~/.cache/trine/demo/m.safetensors: odd", "m.safetensors: odd"),
        ("C:\\Users\\me\\m.trine: odd, 1/2 of it", "m.trine: odd, 1/2 of it"),
        ('output "a" is no number', 'output "a" is no number'),
    ]
    with TestClient(create_app({"m": embedder})) as client:
        for message, shown in errors:

            def fail(*_: object, _message: str = message, **__: object) -> None:
                raise ModelError(_message)

            monkeypatch.setattr(embedder, "encode", fail)
            answer = client.post("/embed", json={"inputs": "a"})
            assert answer.status_code == 424
            assert answer.json()["error"] == shown


def test_null_is_the_default(embedder: Any) -> None:
    with TestClient(create_app({"m": embedder})) as client:
        fields = {"encoding_format": None, "dimensions": None, "user": None}
        plain = client.post("/v1/embeddings", json={"input": "a"}).json()
        assert client.post("/v1/embeddings", json={"input": "a", **fields}).json() == plain
        plain = client.post("/embed", json={"inputs": "a"}).json()
        assert client.post("/embed", json={"inputs": "a", "normalize": None}).json() == plain


def test_an_application_starts_twice(embedder: Any) -> None:
    app = create_app({"m": embedder})
    for _ in range(2):
        with TestClient(app) as client:
            assert client.post("/embed", json={"inputs": "a"}).status_code == 200
            for path in ("/", "/health", "/ping"):
                assert client.head(path).status_code == 200


@pytest.mark.parametrize("key", ["", " ", "secret\n"])
def test_keys_that_cannot_match(key: str) -> None:
    with pytest.raises(InputError, match="api_key"):
        Settings(api_key=key)
    with pytest.raises(InputError, match="payload_limit"):
        Settings(payload_limit=None)  # type: ignore[arg-type]


def test_a_signal_ends_the_server_though_a_client_stalls(tmp_path: Any) -> None:
    import signal
    import subprocess
    import sys

    command = [sys.executable, "-m", "trine", "serve", "--model", str(EXAMPLES / "classify")]
    command += ["--task", "embed", "--port", "0", "--shutdown-timeout", "1", "--no-cache"]
    log = tmp_path / "log"
    with log.open("w") as to, subprocess.Popen(command, stderr=to) as server:
        eventually(lambda: "serving" in log.read_text() or server.poll() is not None)
        port = int(log.read_text().split("127.0.0.1:")[1].split()[0])
        with socket.create_connection(("127.0.0.1", port), WAIT) as client:
            head = "POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            client.sendall(f"{head}Content-Length: 100\r\n\r\n".encode() + b"{")
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT)
            connection.request("GET", "/health")
            assert connection.getresponse().status == 200
            connection.close()
            time.sleep(0.2)
            server.send_signal(signal.SIGTERM)
            assert server.wait(WAIT) == 0, log.read_text()
