# SPDX-License-Identifier: Apache-2.0
"""The examples of docs/serving.md, with the server that the page starts and OpenAI's own client."""

from __future__ import annotations

import importlib.util
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from trine import _core

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
PORT = "8080"  # on the page; the test takes a free one


def pages() -> object:
    """test_docs.py, which knows how blocks of a page are run and compared."""
    spec = importlib.util.spec_from_file_location("serving_pages", HERE / "test_docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_page(monkeypatch: pytest.MonkeyPatch) -> None:
    docs = pages()
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("TRINE_API_KEY", raising=False)
    if _core.default_dtype() != "float32":  # which is what the page shows
        plain = next(isa for isa in _core.isas() if isa not in ("amx", "avx512_bf16"))
        monkeypatch.setenv("TRINE_ISA", plain)
    page = (ROOT / "docs" / "serving.md").read_text()
    blocks = docs.BLOCK.findall(page)
    (start,) = [code for kind, code in blocks if kind == "sh" and code.startswith("trine serve")]
    words = shlex.split(start.replace("\\\n", " "))[1:]
    words[words.index("--port") + 1] = "0"
    command = [sys.executable, "-m", "trine", *words, "--quiet"]
    group = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)  # Windows' signals are a group's
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, creationflags=group
    ) as server:
        try:
            first = server.stderr.readline()
            port = re.search(r" at http://127\.0\.0\.1:(\d+)$", first.strip())
            assert port, first
            fetch = f'curl() {{ "{sys.executable}" "{HERE / "fetch.py"}" "$@"; }}\n'
            names: dict[str, object] = {}
            run = 0
            for (kind, code), (after, shown) in zip(blocks, [*blocks[1:], ("", "")], strict=True):
                if after != "text":
                    continue
                here = code.replace(f"localhost:{PORT}", f"127.0.0.1:{port[1]}")
                assert here != code or "create_app" in code or "client." in code
                if kind == "python":
                    printed = docs.run_python(here, names)
                else:
                    printed = docs.run_shell(fetch + here)
                docs.assert_same(printed, shown, code)
                run += 1
            assert run == 6
            names["client"].close()
            server.send_signal(getattr(signal, "CTRL_BREAK_EVENT", signal.SIGTERM))
            assert server.wait(60) == 0
        finally:
            server.kill()
