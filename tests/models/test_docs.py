# SPDX-License-Identifier: Apache-2.0
"""The examples of README.md and docs/ print what the pages say: ``text`` blocks after their code.

Numbers may differ by what another instruction set rounds otherwise.
"""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest

from trine import _core

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r" *-?\d+(?:\.\d*)?(?:e[+-]?\d+)? *")
SHELL = f'trine() {{ "{sys.executable}" -m trine "$@"; }}\nset -eo pipefail\n'


def run_python(code: str, names: dict[str, object]) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "example", "exec"), names)
    return out.getvalue()


def run_shell(code: str) -> str:
    done = subprocess.run(["bash", "-c", SHELL + code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_same(got: str, shown: str, code: str) -> None:
    words = [NUMBER.sub("#", text) for text in (got, shown)]
    assert words[0].split() == words[1].split(), f"{code}\nprinted\n{got}"
    numbers = [[float(x) for x in NUMBER.findall(text)] for text in (got, shown)]
    assert numbers[0] == pytest.approx(numbers[1], rel=2e-3, abs=1e-4), f"{code}\nprinted\n{got}"


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "docs/index.md",
        "docs/tasks.md",
        "docs/cli.md",
        "docs/compiled-files.md",
        "docs/formats.md",
        "docs/errors.md",
    ],
)
def test_page(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (ROOT / "build").mkdir(exist_ok=True)  # where pages write to
    if _core.default_dtype() != "float32":  # which is what the pages show
        plain = next(isa for isa in _core.isas() if isa not in ("amx", "avx512_bf16"))
        monkeypatch.setenv("TRINE_ISA", plain)
    blocks = BLOCK.findall((ROOT / page).read_text())
    assert blocks
    names: dict[str, object] = {}
    for (kind, code), (after, shown) in zip(blocks, [*blocks[1:], ("", "")], strict=True):
        if kind == "python":
            printed = run_python(code, names)
        elif kind == "sh" and after == "text":  # installing and the like is not run here
            printed = run_shell(code)
        else:
            continue
        assert_same(printed, shown if after == "text" else "", code)
