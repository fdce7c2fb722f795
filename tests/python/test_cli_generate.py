# SPDX-License-Identifier: Apache-2.0
"""``trine generate`` and ``trine chat``: what they print, and how they are interrupted."""

from __future__ import annotations

import io
import json
import sys
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from fakes import FakeSession, make_byte_level, make_generator

import trine
from trine import _core
from trine.cli import main

if TYPE_CHECKING:
    from pathlib import Path

EOS = 1
TOKENIZER = make_byte_level()


def ids_of(text: str) -> list[int]:
    return TOKENIZER.encode(text, add_special_tokens=False).ids


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A model that says "wé." after "!" and after ":", however it is loaded."""
    said = ids_of("wé.")
    follows = dict(pairwise([*said, EOS])) | {ids_of(c)[0]: said[0] for c in "!:"}
    model: Any = make_generator(tmp_path, follows)
    monkeypatch.setattr(_core, "Session", FakeSession)
    monkeypatch.setattr(type(model), "close", lambda _: None)
    monkeypatch.setattr(trine, "load", lambda *_, **options: model if options["task"] else None)
    return model


def pipe(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    content = io.BytesIO(text.encode())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(content, encoding="ascii"))


@pytest.mark.usefixtures("model")
def test_generate(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--model", "x", "Go!", "So!", "--logprobs", "1"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["text"] for line in lines] == ["Go!", "So!"]
    for line in lines:
        found = line["generation"]
        assert found["text"] == "wé."
        assert found["finish_reason"] == "stop"
        assert [x["token"] for x in found["logprobs"]] == found["tokens"]


@pytest.mark.usefixtures("model")
def test_generate_options(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    arguments = ["generate", "--model", "x", "Go!", "--output", str(out)]
    assert main([*arguments, "--stop", "x", "--stop", ".", "--max-new-tokens", "9"]) == 0
    assert json.loads(out.read_text("utf-8"))["generation"]["text"] == "wé"
    assert main([*arguments, "--top-p", "2"]) == 2
    assert "top_p is 2.0" in capsys.readouterr().err
    sampled = [*arguments, "--temperature", "3", "--seed", "4", "--top-k", "9", "--min-p", "0.1"]
    assert main([*sampled, "--repetition-penalty", "1.1", "--min-new-tokens", "2"]) == 0
    first = out.read_text("utf-8")
    assert main([*sampled, "--repetition-penalty", "1.1", "--min-new-tokens", "2"]) == 0
    assert out.read_text("utf-8") == first


@pytest.mark.usefixtures("model")
def test_generate_streams(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe(monkeypatch, "Go!\nSo!\n")
    assert main(["generate", "--model", "x", "--stream"]) == 0
    assert capsys.readouterr().out == "wé.\nwé.\n"


def test_chat(model: Any, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["chat", "--model", "x", "--system", "Be brief."]
    assert main([*arguments, "--text", "Hi", "And é?"]) == 0
    assert capsys.readouterr().out == "wé.\nwé.\n"
    prompts = [row["ids"] for s in model._core.sessions for row in s.rows.values()]
    assert prompts == []  # all given back
    assert len(model._core.sessions) == 2


def test_chat_remembers(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    stream = model.stream
    monkeypatch.setattr(
        type(model),
        "stream",
        lambda _, messages, **options: seen.append(list(messages)) or stream(messages, **options),
    )
    pipe(monkeypatch, "Hi\r\n\nAnd é?\n")
    assert main(["chat", "--model", "x", "--json"]) == 0
    assert [(m["role"], m["content"]) for m in seen[-1]] == [
        ("user", "Hi"),
        ("assistant", "wé."),
        ("user", "And é?"),
    ]


@pytest.mark.usefixtures("model")
def test_chat_as_json(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert main(["chat", "--model", "x", "Hi"]) == 0  # to what is no terminal
    shown = capsys.readouterr().out
    line = json.loads(shown)
    assert line["text"] == "Hi"
    assert line["answer"]["text"] == "wé."
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["chat", "--model", "x", "Hi"]) == 0
    assert capsys.readouterr().out == "wé.\n"
    assert main(["chat", "--model", "x", "--json", "Hi"]) == 0
    assert capsys.readouterr().out == shown
    out = tmp_path / "out"
    assert main(["chat", "--model", "x", "--output", str(out), "Hi"]) == 0
    assert out.read_text("utf-8") == shown
    with pytest.raises(SystemExit):
        main(["chat", "--model", "x", "--json", "--text", "Hi"])


@pytest.mark.usefixtures("model")
def test_chat_input(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pipe(monkeypatch, "\ufeffHi\n")
    assert main(["chat", "--model", "x"]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == "Hi"
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["chat", "--model", "x"]) == 2
    assert "standard input is closed" in capsys.readouterr().err


@pytest.mark.usefixtures("model")
def test_bytes_that_are_no_text(capsys: pytest.CaptureFixture[str]) -> None:
    """Python reads the byte ff of an argument as half of a surrogate pair."""
    for command in ("generate", "chat"):
        assert main([command, "--model", "x", "a\udcff"]) == 2
        assert "half of a surrogate pair, '\\udcff', at character" in capsys.readouterr().err


def test_the_interrupt_key_ends_the_answer(model: Any, capsys: pytest.CaptureFixture[str]) -> None:
    scores = model._core.scores

    def interrupted(ids: list[int]) -> Any:
        if ids[-1] == ids_of("w")[0]:
            raise KeyboardInterrupt
        return scores(ids)

    model._core.scores = interrupted
    assert main(["chat", "--model", "x", "--text", "Hi", "So"]) == 0
    assert capsys.readouterr().out == "w\nw\n"
    assert main(["chat", "--model", "x", "Hi", "So"]) == 0
    answers = [json.loads(line)["answer"] for line in capsys.readouterr().out.splitlines()]
    assert [x["finish_reason"] for x in answers] == ["cancelled"] * 2
