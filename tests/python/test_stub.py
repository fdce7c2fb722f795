# SPDX-License-Identifier: Apache-2.0
"""Types: the stub says what the core has, and a user's script passes the strictest checks."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import trine
from trine import _core

PACKAGE = Path(trine.__file__).resolve().parent
STUB = ast.parse((Path(_core.__file__).parent / "_core.pyi").read_text())
ONLY_TYPES = {"ProfileStep", "NodeComparison", "GeneratedToken", "SessionInfo"}
SCRIPT = """
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import assert_type

import trine

embedder: trine.Embedder = trine.load("demo", dtype="float32", threads=2)
vectors = embedder.encode(["a", "b"], normalize_embeddings=True)
assert_type(embedder.similarity(vectors, vectors), NDArray[np.float32])
outputs = embedder.forward([[0, 5, 2]], attention_mask=[[1, 1, 1]], outputs=["sentence_embedding"])
assert_type(outputs, dict[str, NDArray[np.float32]])
tokens = embedder.tokenize(["a text"])
assert_type(tokens, trine.Tokens)
assert_type(tokens.truncated, list[int])
information: dict[str, Any] = embedder.info()
embedder.save("file.trine")

generator: trine.Generator = trine.load("folder", task="generate")
answer = generator.chat([{"role": "user", "content": "Hello"}], max_new_tokens=5, seed=1)
assert_type(answer.text, str)
for piece in generator.stream("Once", temperature=0.5):
    assert_type(piece, str)

with trine.load("folder") as model:
    model.predict("a text")


def failure() -> type[trine.Error]:
    try:
        raise trine.InputError("no")
    except ValueError:
        return trine.ModelError


assert_type(trine.cmake_prefix(), str)
assert_type(trine.__version__, str)
"""


def strict(folder: Path, script: str) -> str:
    """What mypy says of a script that uses the installed package."""
    (folder / "script.py").write_text(script)
    environment = dict(os.environ)
    if PACKAGE.parent.name != "site-packages":  # where mypy looks by itself
        environment["MYPYPATH"] = str(PACKAGE.parent)
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(folder / "cache")]
    done = subprocess.run(
        [*command, "script.py"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def test_a_users_script_is_strictly_typed(tmp_path: Path) -> None:
    assert "Success" in strict(tmp_path, SCRIPT)


def test_a_users_mistakes_are_found(tmp_path: Path) -> None:
    wrong = (
        SCRIPT
        + "\nembedder.encode(5)\ngenerator.chat('x')\ntrine.load('x', dtype='f')\ntrine.nope\n"
    )
    found = strict(tmp_path, wrong)
    assert "Found 4 errors" in found, found


def parameters(node: ast.FunctionDef) -> list[tuple[str, bool]]:
    """Names of a stub's parameters without self, each with whether it may be left out."""
    args = [*node.args.posonlyargs, *node.args.args]
    missing = len(args) - len(node.args.defaults)
    named = [(arg.arg, i >= missing) for i, arg in enumerate(args)]
    named += [
        (arg.arg, default is not None)
        for arg, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
    ]
    return [(name, optional) for name, optional in named if name != "self"]


def documented(value: object) -> list[tuple[str, bool]]:
    """The same of what pybind11 writes into the first line of a docstring."""
    first = (value.__doc__ or "").splitlines()[0]
    inner = first[first.index("(") + 1 : first.rindex(") -> ")]
    parts, depth, start = [], 0, 0
    for i, letter in enumerate(inner + ","):
        depth += (letter in "[({") - (letter in "])}")
        if letter == "," and depth == 0:
            parts.append(inner[start:i].strip())
            start = i + 1
    pairs = [(re.split(r"[:=]", part)[0].strip(), " = " in part) for part in parts]
    return [pair for pair in pairs if pair[0] not in ("self", "*", "/", "")]


def callables() -> dict[str, tuple[ast.FunctionDef, object]]:
    found = {}
    for node in STUB.body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = (node, getattr(_core, node.name, None))
        if isinstance(node, ast.ClassDef) and node.name not in ONLY_TYPES:
            for inner in node.body:
                plain = isinstance(inner, ast.FunctionDef)
                if plain and not any(ast.unparse(d) == "property" for d in inner.decorator_list):
                    value = getattr(getattr(_core, node.name, None), inner.name, None)
                    found[f"{node.name}.{inner.name}"] = (inner, value)
    return found


CALLABLES = callables()


@pytest.mark.parametrize("name", CALLABLES)
def test_parameters_are_those_of_the_core(name: str) -> None:
    node, value = CALLABLES[name]
    assert value is not None, f"the core has no {name}"
    said, real = parameters(node), documented(value)
    assert [optional for _, optional in said] == [optional for _, optional in real], (said, real)
    for (stub_name, _), (real_name, _) in zip(said, real, strict=True):
        assert stub_name == real_name or re.fullmatch(r"arg\d+", real_name), (said, real)


def test_the_stub_has_every_name_of_the_core() -> None:
    names = {}
    for node in STUB.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names[node.name] = node
        elif isinstance(node, ast.AnnAssign):
            names[ast.unparse(node.target)] = node
    public = {name for name in dir(_core) if not name.startswith("_")} | {"__version__"}
    assert set(names) - ONLY_TYPES == public
    for name, node in names.items():
        if isinstance(node, ast.ClassDef) and name not in ONLY_TYPES:
            functions = (x.name for x in node.body if isinstance(x, ast.FunctionDef))
            said = {name for name in functions if not name.startswith("_")}
            real = {x for x in vars(getattr(_core, name)) if not x.startswith("_")}
            assert said == real, name
