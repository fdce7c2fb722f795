# SPDX-License-Identifier: Apache-2.0
"""The command line: what it prints, and how it fails."""

from __future__ import annotations

import io
import json
import re
import shlex
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fakes import HIDDEN, VOCAB, make

import trine
from trine import InputError, ModelError
from trine.cli import main, make_parser
from trine.commands import COMMANDS

if TYPE_CHECKING:
    from pathlib import Path

CLASSES = {
    "embed": (trine.Embedder, HIDDEN),
    "classify": (trine.Classifier, 3),
    "tag": (trine.Tagger, 3),
    "ask": (trine.Reader, 1),
    "fill": (trine.Filler, len(VOCAB)),
}


@pytest.fixture
def loads(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Every model name loads a fake; the calls are noted."""
    calls: list[dict[str, Any]] = []

    def load(source: str, *, task: str | None = None, **options: Any) -> Any:
        calls.append({"source": source, "task": task, **options})
        if source == "missing":
            raise ModelError("missing: no\n  such file")
        kind, columns = CLASSES[task or "embed"]
        config = {"id2label": {"0": "entailment", "1": "O", "2": "contradiction"}}
        return make(kind, folder, columns=columns, config=config)

    monkeypatch.setattr(trine, "load", load)
    return calls


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def pipe(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="ascii"))


def test_embed(
    loads: list[dict[str, Any]], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ["the river", "été"]
    assert main(["embed", "--model", "x", "--threads", "2", *texts]) == 0
    found = lines(capsys)
    assert [row["text"] for row in found] == texts
    wanted = make(trine.Embedder, folder).encode(texts)
    np.testing.assert_array_equal(np.array([r["embedding"] for r in found], np.float32), wanted)
    assert loads[0]["source"] == "x"
    assert loads[0]["threads"] == 2
    assert loads[0]["task"] == "embed"
    options = ["--precision", "ubinary", "--truncate-dim", "9", "--normalize", "--prompt", "a "]
    assert main(["embed", "--model", "x", *options, *texts]) == 0
    assert all(len(row["embedding"]) == 2 for row in lines(capsys))


@pytest.mark.usefixtures("loads")
def test_standard_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe(monkeypatch, "the river\r\n\nété".encode())
    assert main(["embed", "--model", "x"]) == 0
    assert [row["text"] for row in lines(capsys)] == ["the river", "", "été"]
    pipe(monkeypatch, b"")
    assert main(["embed", "--model", "x"]) == 0
    assert lines(capsys) == []
    pipe(monkeypatch, "\ufeffthe river\n\ufeffa".encode())  # a mark is one at the start alone
    assert main(["embed", "--model", "x"]) == 0
    assert [row["text"] for row in lines(capsys)] == ["the river", "\ufeffa"]
    pipe(monkeypatch, b"")
    assert main(["classify", "--model", "x", "--labels", "a,b"]) == 0
    assert lines(capsys) == []
    pipe(monkeypatch, b"\xff\xfe")
    assert main(["embed", "--model", "x"]) == 2
    assert "utf-8" in capsys.readouterr().err


@pytest.mark.usefixtures("loads")
def test_files(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    out = tmp_path / "out"
    assert main(["embed", "--model", "x", "--output", str(out), "a", "the"]) == 0
    assert len(out.read_text(encoding="utf-8").splitlines()) == 2
    assert main(["embed", "--model", "x", "--format", "npy", "--output", str(out), "a"]) == 0
    assert np.load(out).shape == (1, HIDDEN)
    assert capsysbinary.readouterr().out == b""
    assert main(["embed", "--model", "x", "--format", "npy", "a", "the"]) == 0
    assert np.load(io.BytesIO(capsysbinary.readouterr().out)).shape == (2, HIDDEN)


@pytest.mark.usefixtures("loads")
def test_classify(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", "--model", "x", "--top-k", "2", "the river", "the\ta"]) == 0
    found = lines(capsys)
    assert [len(row["labels"]) for row in found] == [2, 2]
    assert found[1]["text"] == "the\ta"
    assert main(["classify", "--model", "x", "--labels", "red,blue", "the river"]) == 0
    assert {x["label"] for x in lines(capsys)[0]["labels"]} == {"red", "blue"}
    best = ["classify", "--model", "x", "--labels", "red,blue", "a", "--top-k"]
    assert main([*best, "1"]) == 0
    assert len(lines(capsys)[0]["labels"]) == 1
    assert main([*best, "0"]) == 2
    assert "top_k is 0" in capsys.readouterr().err


@pytest.mark.usefixtures("loads")
def test_tag_ask_fill(capsys: pytest.CaptureFixture[str]) -> None:
    tag = ["tag", "--model", "x", "--aggregation", "none", "--stride", "3"]
    assert main([*tag, "the river"]) == 0
    assert set(lines(capsys)[0]) == {"text", "entities"}
    ask = ["ask", "--model", "x", "--question", "who", "--top-k", "2", "--max-answer-len", "1"]
    assert main([*ask, "Ada walks."]) == 0
    assert len(lines(capsys)[0]["answers"]) == 2
    assert main(["ask", "--model", "x", "who\tAda walks."]) == 0
    assert len(lines(capsys)[0]["answers"]) == 1
    assert main(["ask", "--model", "x", "no tab"]) == 2
    assert "input 0: no --question" in capsys.readouterr().err
    assert main(["fill", "--model", "x", "--targets", "red,blue", "the <mask>"]) == 0
    (candidates,) = lines(capsys)[0]["candidates"]
    assert {x["text"] for x in candidates} == {"red", "blue"}


@pytest.mark.usefixtures("loads")
@pytest.mark.parametrize("closed", ["stdin", "stdout", "stderr"])
def test_closed_streams(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], closed: str
) -> None:
    """Python has None for a stream that the program was started without."""
    monkeypatch.setattr(sys, closed, None)
    if closed == "stderr":
        assert main(["embed", "--model", "x", "a", "b"]) == 0
        assert main(["embed", "--model", "missing", "a"]) == 2
        return
    arguments = [] if closed == "stdin" else ["a"]
    for command in ("embed", "classify"):
        assert main([command, "--model", "x", *arguments]) == 2
    named = {"stdin": "standard input is closed", "stdout": "standard output is closed"}
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2
    assert all(named[closed] in line for line in told)


def test_info(
    loads: list[dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert main(["info", "x"]) == main(["info", "--model", "x"]) == 0
    assert [call["source"] for call in loads] == ["x", "x"]
    first, second = lines(capsys)  # an object a line
    assert first["architecture"] == second["architecture"] == "FakeModel"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["info", "x"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith('{\n  "architecture": "FakeModel"')
    assert json.loads(shown) == first
    assert main(["info"]) == 2
    assert "which model?" in capsys.readouterr().err


@pytest.mark.usefixtures("loads")
def test_errors_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["embed", "--model", "missing", "text"]) == 2
    assert capsys.readouterr().err == "trine: missing: no such file\n"
    assert main(["fill", "--model", "x", "no mask"]) == 2
    assert capsys.readouterr().err.startswith("trine: input 0 has no <mask>")
    assert main(["embed", "--model", "x", "--output", "/no/such/folder/file", "a"]) == 2
    assert "/no/such/folder/file" in capsys.readouterr().err


@pytest.mark.usefixtures("loads")
def test_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(trine, "load", interrupt)
    assert main(["embed", "--model", "x", "a"]) == 130


@pytest.mark.parametrize("arguments", [[], ["sing"], ["embed"], ["embed", "--model"]])
def test_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: trine" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS, ids=[command.name for command in COMMANDS])
def test_help_has_an_example(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command.name, "--help"])
    assert caught.value.code == 0
    assert f"trine {command.name}" in capsys.readouterr().out.partition("example:")[2]
    import shlex

    for example in command.example.split("\n"):
        make_parser().parse_args(shlex.split(example)[1:])


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"trine {trine.__version__}\n"


# verify and bench ------------------------------------------------------------------------------


@pytest.fixture
def reference(folder: Path) -> dict[str, Any]:
    model = make(trine.Embedder, folder)
    texts = ["the river", "", "a lake in london"]
    return {"texts": np.array(texts), "sentence_embedding": model.encode(texts)}


@pytest.mark.usefixtures("loads")
def test_verify(
    reference: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "reference.npz"
    np.savez(path, **reference)
    arguments = ["verify", "x", "--reference", str(path)]
    assert main(arguments) == 0
    assert "max difference 0.00e+00" in capsys.readouterr().out
    reference["sentence_embedding"][1, 2] *= 1.01
    np.savez(path, **reference)
    assert main([*arguments, "--json"]) == 1
    found = lines(capsys)[0]
    assert found["ok"] is False
    assert found["max_difference"] > 0
    reference["sentence_embedding"][0, 0] = np.nan
    np.savez(path, **reference)
    assert main(arguments) == 1


@pytest.mark.usefixtures("loads")
def test_verify_ids_and_token_outputs(folder: Path, tmp_path: Path) -> None:
    model = make(trine.Embedder, folder)
    ids = np.array([[0, 7, 8, 2], [0, 9, 2, 1]])
    mask = ids != 1
    path = tmp_path / "reference.npz"
    np.savez(path, input_ids=ids, attention_mask=mask, **model.forward(ids, mask))
    assert main(["verify", "x", "--reference", str(path)]) == 0
    texts = ["the river", "a lake in london"]
    tokens = model.tokenize(texts)
    padded = np.full((2, 6), 1)
    for row, sequence in enumerate(tokens):
        padded[row, : len(sequence)] = sequence
    hidden = model.forward(padded, padded != 1)["last_hidden_state"]
    np.savez(path, texts=np.array(texts), last_hidden_state=hidden)
    assert main(["verify", "x", "--reference", str(path)]) == 0


@pytest.mark.usefixtures("loads")
@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"texts": np.array(["a"])}, "no output to compare"),
        ({"logits": np.zeros(3)}, "either 'texts' or 'input_ids'"),
        ({"texts": np.array(["a"]), "sentence_embedding": np.zeros((1, 3))}, "has shape"),
        ({"texts": np.array(["a"]), "logits": np.zeros((1, 3))}, "no output 'logits'"),
    ],
)
def test_verify_refuses(
    tmp_path: Path, arrays: dict[str, Any], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "reference.npz"
    np.savez(path, **arrays)
    assert main(["verify", "x", "--reference", str(path)]) == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.usefixtures("loads")
def test_verify_without_a_reference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "x"]) == 0  # with itself on another device
    assert capsys.readouterr().out.count(": ok") == 2
    (tmp_path / "text").write_text("not an archive")
    assert main(["verify", "x", "--reference", str(tmp_path / "text")]) == 2
    assert "not an .npz file" in capsys.readouterr().err


def test_the_demo_has_a_reference() -> None:
    from trine.verify import _find, read_reference

    class Demo:
        def info(self) -> dict[str, str]:
            return {"source": "demo"}

    arrays = read_reference(_find(Demo(), None))  # type: ignore[arg-type]
    assert arrays["sentence_embedding"].shape == (len(arrays["texts"]), 768)
    np.testing.assert_allclose(np.linalg.norm(arrays["sentence_embedding"], axis=1), 1, atol=1e-5)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trine.bench._core.peak_gflops", lambda *_: 100.0)
    monkeypatch.setattr("trine.bench._core.read_bandwidth", lambda _: 10.0)


@pytest.mark.usefixtures("loads", "machine")
def test_bench(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--cases", "1x16,2x99", "--rounds", "2", "--json"]
    assert main(["bench", "x", *options]) == 0
    head, *cases = lines(capsys)
    assert head["machine"]["isa"] == "fake"
    assert [case["case"] for case in cases] == ["1x16", "2x40", "64 mixed"]
    one = cases[0]
    assert (one["peak_gflops"], one["read_gb_per_s"]) == (100.0, 10.0)
    # 16 tokens: 16e6 flops at 100e9 a second take longer than 4e5 bytes at 10e9.
    assert one["limit_share"] * one["median_ms"] == pytest.approx(0.16, rel=1e-6)
    assert one["gflops"] == pytest.approx(16e6 / one["median_ms"] / 1e6, rel=1e-6)
    assert main(["bench", "x", "--cases", "1x8", "--rounds", "1", "--profile"]) == 0
    text = capsys.readouterr().out
    assert "% of the limit" in text
    assert "linear" in text
    assert main(["bench", "x", "--cases", "16"]) == 2
    assert "expected batch x tokens" in capsys.readouterr().err


def test_cases() -> None:
    from trine.bench import parse_cases

    assert parse_cases("1x16,32x128") == [(1, 16), (32, 128)]
    for wrong in ("", "1x", "x1", "0x5", "1x-1", "ax3"):
        with pytest.raises(InputError):
            parse_cases(wrong)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_the_example_of_help_is_a_command(command: Any) -> None:
    for line in command.example.splitlines():
        words = shlex.split(line)
        assert words[0] == "trine"
        options = make_parser().parse_args(words[1:])
        assert options.command is command


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    shown = capsys.readouterr().out
    assert 'trine embed --model demo "A sentence."' in shown
    for command in COMMANDS:
        assert re.search(rf"^\s+{command.name}\s+{command.summary.split()[0]}", shown, re.MULTILINE)
