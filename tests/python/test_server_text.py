# SPDX-License-Identifier: Apache-2.0
"""The routes of generators, whole and streamed, against what the Python API gives."""

from __future__ import annotations

import http.client
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest
from serving import WAIT, ask, events, eventually, example, listening, metric
from starlette.testclient import TestClient

from trine import ModelError
from trine.server import Settings, create_app

if TYPE_CHECKING:
    from collections.abc import Iterator

PROMPT = "The capital of Italy is"
MESSAGES = [{"role": "user", "content": "What is the capital of Peru?"}]
TEXT, CHAT = "/v1/completions", "/v1/chat/completions"


@pytest.fixture(scope="module")
def model() -> Iterator[Any]:
    with example("chat") as model:
        yield model


@pytest.fixture(scope="module")
def client(model: Any) -> Iterator[TestClient]:
    with TestClient(create_app({"m": model})) as client:
        yield client


def post(client: TestClient, path: str, **body: Any) -> Any:
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_completion(client: TestClient, model: Any) -> None:
    wanted = model.generate(PROMPT, max_new_tokens=16)
    got = post(client, TEXT, prompt=PROMPT, model="m")
    assert (got["object"], got["model"]) == ("text_completion", "m")
    assert got["id"].startswith("cmpl-")
    (choice,) = got["choices"]
    assert choice == {
        "index": 0,
        "text": wanted.text,
        "logprobs": None,
        "finish_reason": wanted.finish_reason,
    }
    read, written = len(model.tokenize([PROMPT]).ids), len(wanted.tokens)
    assert got["usage"] == {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
    }


def test_forms_of_prompts(client: TestClient, model: Any) -> None:
    ids = model.tokenizer.encode(PROMPT).ids
    wanted = [model.generate(x, max_new_tokens=2).text for x in (ids, "The capital of Spain is")]
    got = post(client, TEXT, prompt=ids, max_tokens=2)
    assert got["choices"][0]["text"] == wanted[0]
    assert got["choices"][0]["finish_reason"] == "length"
    got = post(client, TEXT, prompt=[PROMPT, "The capital of Spain is"], max_tokens=2)
    assert [(x["index"], x["text"]) for x in got["choices"]] == [(0, wanted[0]), (1, wanted[1])]
    assert got["usage"]["completion_tokens"] == 4


def test_sampling(client: TestClient, model: Any) -> None:
    options = {"temperature": 30.0, "top_p": 0.9, "top_k": 200, "min_p": 0.01, "seed": 3}
    wanted = model.generate([PROMPT] * 3, max_new_tokens=8, repetition_penalty=1.1, **options)
    body = {"prompt": PROMPT, "max_tokens": 8, "repetition_penalty": 1.1, **options}
    got = post(client, TEXT, n=3, **body)
    assert [x["text"] for x in got["choices"]] == [x.text for x in wanted]
    assert len({x.text for x in wanted}) > 1
    assert post(client, TEXT, **body)["choices"][0]["text"] == wanted[0].text
    everything = post(client, TEXT, **{**body, "top_k": -1, "seed": -1, "temperature": None})
    assert everything["choices"][0]["text"] == (
        model.generate(PROMPT, max_new_tokens=8, repetition_penalty=1.1).text
    )


def test_stop(client: TestClient, model: Any) -> None:
    wanted = model.generate(PROMPT, stop=["."])
    for stop in (".", ["never", "."]):
        (choice,) = post(client, TEXT, prompt=PROMPT, stop=stop)["choices"]
        assert (choice["text"], choice["finish_reason"]) == (wanted.text, "stop")
    (choice,) = post(client, TEXT, prompt=PROMPT, min_tokens=9, max_tokens=9)["choices"]
    assert choice["finish_reason"] == "length"


def test_chat(client: TestClient, model: Any) -> None:
    wanted = model.chat(MESSAGES)
    got = post(client, CHAT, messages=MESSAGES)
    assert got["object"] == "chat.completion"
    (choice,) = got["choices"]
    assert choice["message"] == {"role": "assistant", "content": wanted.text, "refusal": None}
    assert choice["finish_reason"] == "stop"
    assert got["usage"]["completion_tokens"] == len(wanted.tokens)
    parts = [{"type": "text", "text": "What is the "}, {"type": "text", "text": "capital of Peru?"}]
    neutral = {"tools": [], "response_format": {"type": "text"}, "logit_bias": None, "user": "u"}
    for body in (
        {"messages": [{"role": "user", "content": parts}], **neutral},
        {"messages": MESSAGES, "n": 2},
    ):
        for choice in post(client, CHAT, **body)["choices"]:
            assert choice["message"]["content"] == wanted.text
    for name in ("max_tokens", "max_completion_tokens"):
        (choice,) = post(client, CHAT, messages=MESSAGES, **{name: 2})["choices"]
        assert choice["finish_reason"] == "length"


def test_logprobs(client: TestClient, model: Any) -> None:
    wanted = model.generate(PROMPT, max_new_tokens=4, logprobs=2).logprobs
    (choice,) = post(client, TEXT, prompt=PROMPT, max_tokens=4, logprobs=2)["choices"]
    found = choice["logprobs"]
    assert found["token_logprobs"] == [x["logprob"] for x in wanted]
    assert found["tokens"] == [x["text"] for x in wanted]
    assert [set(x) for x in found["top_logprobs"]] == [
        {y["text"] for y in x["top"]} for x in wanted
    ]
    assert found["text_offset"][:2] == [0, len(wanted[0]["text"])]

    wanted = model.chat(MESSAGES, logprobs=1).logprobs
    body = {"messages": MESSAGES, "logprobs": True, "top_logprobs": 1}
    (choice,) = post(client, CHAT, **body)["choices"]
    content = choice["logprobs"]["content"]
    assert [x["logprob"] for x in content] == [x["logprob"] for x in wanted]
    assert all(bytes(x["bytes"]).decode() == x["token"] for x in content)
    assert [x["top_logprobs"][0]["token"] for x in content] == [x["top"][0]["text"] for x in wanted]
    # A stream brings the same ones, each once.
    chunks = events(client.post(CHAT, json={**body, "stream": True}).text)
    lists = [x["choices"][0]["logprobs"] for x in chunks]
    assert [token for found in lists if found for token in found["content"]] == content


def test_logprobs_are_numbers_that_json_has(
    client: TestClient, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate = model.generate

    def unlikely(*args: Any, **options: Any) -> Any:
        found = generate(*args, **options)
        found[0].logprobs[0]["top"][0]["logprob"] = float("-inf")
        return found

    monkeypatch.setattr(model, "generate", unlikely)
    (choice,) = post(client, TEXT, prompt=PROMPT, logprobs=1)["choices"]
    assert list(choice["logprobs"]["top_logprobs"][0].values()) == [-9999.0]


def test_stream_of_text(client: TestClient, model: Any) -> None:
    wanted = model.generate(PROMPT, max_new_tokens=16)
    body = {"prompt": PROMPT, "stream": True}
    answer = client.post(TEXT, json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    chunks = events(answer.text)
    assert all(len(x["choices"]) == 1 and "usage" not in x for x in chunks)
    assert len({x["id"] for x in chunks}) == 1
    assert "".join(x["choices"][0]["text"] for x in chunks) == wanted.text
    reasons = [x["choices"][0]["finish_reason"] for x in chunks]
    assert reasons == [None] * (len(chunks) - 1) + [wanted.finish_reason]
    counted = events(
        client.post(TEXT, json={**body, "stream_options": {"include_usage": True}}).text
    )
    assert all(x["usage"] is None for x in counted[:-1])
    assert counted[-1]["choices"] == []
    assert counted[-1]["usage"] == post(client, TEXT, prompt=PROMPT)["usage"]


def test_stream_of_chat(client: TestClient, model: Any) -> None:
    body = {"messages": MESSAGES, "stream": True, "stop": "Lima"}
    chunks = events(client.post(CHAT, json=body).text)
    assert all(x["object"] == "chat.completion.chunk" for x in chunks)
    deltas = [x["choices"][0]["delta"] for x in chunks]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert deltas[-1] == {}
    text = "".join(x.get("content", "") for x in deltas)
    assert text == model.chat(MESSAGES, stop="Lima").text == "The capital of Peru is "
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert len(deltas) > 4  # as it comes, not all at once


def test_a_stream_without_text(client: TestClient) -> None:
    body = {"messages": MESSAGES, "stream": True, "stop": "The"}
    chunks = events(client.post(CHAT, json=body).text)
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        (TEXT, {}, "prompt: Field required"),
        (TEXT, {"prompt": {}}, "prompt: expected a text"),
        (TEXT, {"prompt": "a " * 400}, "no room for another"),
        (TEXT, {"prompt": "a", "max_tokens": 0}, "max_tokens"),
        (TEXT, {"prompt": "a", "temperature": -1}, "temperature is -1"),
        (TEXT, {"prompt": "a", "top_p": 1.5}, "top_p is 1.5"),
        (TEXT, {"prompt": "a", "stop": [1]}, "stop: expected a text"),
        (TEXT, {"prompt": "a", "stop": [""]}, "expected texts that aren't empty"),
        (TEXT, {"prompt": "a", "logprobs": 21}, "logprobs"),
        (TEXT, {"prompt": "a", "echo": True}, "echo is not supported"),
        (TEXT, {"prompt": "a", "logit_bias": {"5": 1}}, "logit_bias is not supported"),
        (TEXT, {"prompt": "a", "presence_penalty": 0.5}, "presence_penalty is not supported"),
        (TEXT, {"prompt": ["a", "b"], "stream": True}, "a stream has one prompt"),
        (TEXT, {"prompt": "a" * 3000, "stream": True}, "no room for another"),
        (CHAT, {"messages": []}, "messages"),
        (CHAT, {"messages": [{"content": "a"}]}, "messages.0.role"),
        (CHAT, {"messages": MESSAGES, "n": 2, "stream": True}, "n of 1"),
        (CHAT, {"messages": MESSAGES, "tools": [{"type": "function"}]}, "tools is not supported"),
        (
            CHAT,
            {"messages": MESSAGES, "response_format": {"type": "json_object"}},
            "response_format",
        ),
        (CHAT, {"messages": MESSAGES, "top_logprobs": 1}, "needs logprobs"),
        (
            CHAT,
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "part 0: only texts can be read",
        ),
    ],
)
def test_wrong_requests(client: TestClient, path: str, body: Any, message: str) -> None:
    answer = client.post(path, json=body)
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert message in error["message"]
    assert error["type"] == "invalid_request_error"


def test_no_more_tokens_than_allowed(model: Any) -> None:
    with TestClient(create_app({"m": model}, Settings(max_new_tokens=3))) as client:
        body = {"prompt": PROMPT, "max_tokens": 50, "min_tokens": 50}
        assert post(client, TEXT, **body)["usage"]["completion_tokens"] == 3


def test_an_error_amid_a_stream(
    client: TestClient, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Pieces:
        result = model.generate(PROMPT)

        def __enter__(self) -> Any:
            return iter(self.pieces())

        def __exit__(self, *_: object) -> None:
            pass

        def pieces(self) -> Iterator[str]:
            yield "a"
            raise ModelError("the logits are no numbers")

    monkeypatch.setattr(model, "stream", lambda *_, **__: Pieces())
    answer = client.post(TEXT, json={"prompt": PROMPT, "stream": True})
    blocks = answer.text.strip().split("\n\n")
    assert json.loads(blocks[0].removeprefix("data: "))["choices"][0]["text"] == "a"
    assert json.loads(blocks[-1].removeprefix("data: "))["error"]["type"] == "server_error"
    assert "[DONE]" not in answer.text


class Endless:
    """Generations that go on until they are cancelled."""

    def __init__(self, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.ended = threading.Event(), threading.Event()
        run = model._run

        def endless(jobs: Any, options: Any, ends: Any, size: Any, cancel: Any) -> Any:
            self.begun.set()
            try:
                while not cancel.is_set():
                    yield from run(jobs, options, ends, size, None)
            finally:
                self.ended.set()

        monkeypatch.setattr(model, "_run", endless)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_ends_its_generation(
    model: Any, monkeypatch: pytest.MonkeyPatch, *, stream: bool
) -> None:
    with listening({"m": model}) as address:
        endless = Endless(model, monkeypatch)
        connection = http.client.HTTPConnection(*address, timeout=WAIT)
        body = json.dumps({"prompt": PROMPT, "stream": stream})
        connection.request("POST", TEXT, body, {"Content-Type": "application/json"})
        if stream:
            answer = connection.getresponse()
            assert answer.readline().startswith(b"data: ")
            answer.close()
        assert endless.begun.wait(WAIT)
        assert not endless.ended.is_set()
        connection.close()
        assert endless.ended.wait(WAIT)
        name = f'trine_requests_total{{route="{TEXT}",status="499"}}'
        eventually(lambda: metric(ask(address, "/metrics")[1], name) == 1)
        in_flight = "trine_requests_in_flight"
        eventually(lambda: metric(ask(address, "/metrics")[1], in_flight) == 0)


def test_a_stream_that_is_overloaded(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with listening({"m": model}, max_concurrent_requests=1) as address:
        endless = Endless(model, monkeypatch)
        connection = http.client.HTTPConnection(*address, timeout=WAIT)
        body = {"prompt": PROMPT, "stream": True}
        connection.request("POST", TEXT, json.dumps(body), {"Content-Type": "application/json"})
        assert endless.begun.wait(WAIT)
        assert ask(address, TEXT, body)[0] == 429
        connection.close()
        assert endless.ended.wait(WAIT)


def test_metrics(model: Any) -> None:
    with TestClient(create_app({"m": model})) as client:
        usage = post(client, TEXT, prompt=PROMPT)["usage"]
        client.post(TEXT, json={"prompt": PROMPT, "stream": True})
        text = client.get("/metrics").text
    assert metric(text, 'trine_input_tokens_total{model="m"}') == 2 * usage["prompt_tokens"]
    assert metric(text, 'trine_output_tokens_total{model="m"}') == 2 * usage["completion_tokens"]
    assert metric(text, f'trine_requests_total{{route="{TEXT}",status="200"}}') == 2
