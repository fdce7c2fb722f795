# SPDX-License-Identifier: Apache-2.0
"""Servers for the tests: in the process with starlette's client, and over a socket."""

from __future__ import annotations

import http.client
import json
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn

import trine
from trine.server import Settings, create_app

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = Path(__file__).resolve().parents[1] / "golden" / "examples"
WAIT = 30.0  # seconds for what takes milliseconds unless it hangs


def example(name: str, task: str | None = None) -> Any:
    return trine.load(EXAMPLES / name, task=task, threads=1)


@contextmanager
def listening(models: dict[str, Any], **limits: Any) -> Iterator[tuple[str, int]]:
    """A server on a free port, on a thread of its own."""
    app = create_app(models, Settings(**limits))
    config = uvicorn.Config(app, port=0, log_config=None, log_level="critical", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    until = time.monotonic() + WAIT
    while not server.started:
        assert time.monotonic() < until
        time.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[:2]
    finally:
        server.should_exit = True
        thread.join(WAIT)
        assert not thread.is_alive()


def ask(address: tuple[str, int], path: str, body: Any = None) -> tuple[int, Any]:
    """Send a request of its own connection; returns the status and the JSON."""
    connection = http.client.HTTPConnection(*address, timeout=WAIT)
    try:
        if body is None:
            connection.request("GET", path)
        else:
            kind = {"Content-Type": "application/json"}
            connection.request("POST", path, json.dumps(body), kind)
        answer = connection.getresponse()
        text = answer.read().decode()
        is_json = answer.headers.get_content_type() == "application/json"
        return answer.status, json.loads(text) if is_json else text
    finally:
        connection.close()


def eventually(condition: Any) -> None:
    until = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def metric(text: str, name: str) -> float:
    """The value of one line of Prometheus' format; 0 where there is none."""
    for line in text.splitlines():
        if line.startswith(f"{name} "):
            return float(line.split()[-1])
    return 0.0


def events(text: str) -> list[Any]:
    """The contents of a stream, which has to end as OpenAI's do."""
    blocks = text.split("\n\n")
    assert blocks[-2:] == ["data: [DONE]", ""]
    return [json.loads(block.removeprefix("data: ")) for block in blocks[:-2]]
