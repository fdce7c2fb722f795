# SPDX-License-Identifier: Apache-2.0
"""``trine serve`` as a command: what it loads, how it begins, fails and ends."""

from __future__ import annotations

import importlib.abc
import json
import re
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from serving import EXAMPLES, WAIT, ask

from trine.cli import main

if TYPE_CHECKING:
    from collections.abc import Sequence


class Absent(importlib.abc.MetaPathFinder):
    """Finds that a package is not installed."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def find_spec(self, name: str, path: Sequence[str] | None, target: Any = None) -> None:
        del path, target
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.mark.parametrize("name", ["fastapi", "uvicorn", "prometheus_client"])
def test_without_the_extra(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in [m for m in sys.modules if m.partition(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "meta_path", [Absent(name), *sys.meta_path])
    assert main(["serve", "--model", str(EXAMPLES / "tag")]) == 2
    message = capsys.readouterr().err
    assert "pip install 'trine[serve]'" in message
    assert name in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "which model?"),
        (["tag", "--api-key", ""], "api_key is empty"),
        (["tag", "--port", "70000"], "--port is 70000"),
        (["tag", "--payload-limit", "0"], "payload_limit is 0"),
        (["tag", "--served-model-name", "a", "--served-model-name", "b"], "1 models and 2"),
        (["tag", "--model", "tag"], "two models have one name"),
        (["tag", "--port", "0", "--max-input-length", "9999"], "max_seq_length is 9999"),
    ],
)
def test_mistakes(
    options: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(EXAMPLES)
    assert main(["serve", *options]) == 2
    assert message in capsys.readouterr().err


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", "--model", str(EXAMPLES / "tag"), "--port", port]) == 2
    assert f"127.0.0.1, port {port}: " in capsys.readouterr().err


@pytest.mark.parametrize("quiet", [False, True])
def test_the_command_itself(monkeypatch: pytest.MonkeyPatch, *, quiet: bool) -> None:
    """From the start to the end by a signal: exit code 0, a line for each request."""
    monkeypatch.setenv("TRINE_API_KEY", "key" if quiet else "")
    command = [sys.executable, "-m", "trine", "serve", "--port", "0", "--threads", "1"]
    command += ["--model", str(EXAMPLES / "tag"), "--model", str(EXAMPLES / "rank")]
    command += ["--quiet"] if quiet else []
    group = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)  # Windows' signals are a group's
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, creationflags=group
    ) as server:
        try:
            first = server.stderr.readline()
            found = re.fullmatch(r"trine: serving tag, rank at http://127\.0\.0\.1:(\d+)\n", first)
            assert found, first + server.stderr.read()
            address = ("127.0.0.1", int(found[1]))
            assert ask(address, "/health") == (200, {"status": "ok"})
            body = {"inputs": "Ada Lovelace lives in Rome."}
            status, entities = ask(address, "/predict", body)
            if quiet:  # and with a key, which this request doesn't show
                assert status == 401
            else:
                assert [x["text"] for x in entities] == ["Ada Lovelace", "Rome"]
            server.send_signal(getattr(signal, "CTRL_BREAK_EVENT", signal.SIGTERM))
            assert server.wait(WAIT) == 0
            log = server.stderr.read()
        finally:
            server.kill()
    if quiet:
        assert log == ""
    else:
        lines = re.findall(r"^trine: (GET|POST) (\S+) 200 [\d.]+ ms$", log, re.MULTILINE)
        assert lines == [("GET", "/health"), ("POST", "/predict")]
        assert len(log.splitlines()) == 2


def test_what_is_printed_by_the_command_line_is_what_is_served(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The results of `trine tag` and of /predict are the same JSON."""
    from serving import example
    from starlette.testclient import TestClient

    from trine.server import create_app

    text = "Ada Lovelace lives in Rome."
    assert main(["tag", "--model", str(EXAMPLES / "tag"), "--threads", "1", text]) == 0
    printed = json.loads(capsys.readouterr().out)["entities"]
    with example("tag") as model, TestClient(create_app({"m": model})) as client:
        assert client.post("/predict", json={"inputs": text}).json() == printed
