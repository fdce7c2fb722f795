# SPDX-License-Identifier: Apache-2.0
"""What the tree promises of itself: generated docs are current, files short, all licensed.

And the C++ that Windows gets is no GNU dialect.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import dialect

ROOT = Path(__file__).resolve().parent.parent
LICENCE = "SPDX-License-Identifier: Apache-2.0"
# Raising these is a decision for review, not for whoever needs a line more.
MAX_CORE_LINES = 26000
MAX_FILE_LINES = 500
# A call_guard of a constructor holds on while pybind11 registers the object, which needs the GIL
# and without one crashes: such a constructor is a lambda that lets go inside.
GUARDED_INIT = re.compile(
    r"\.def\(py::init\b(?:(?!\.def).)*?(?:call_guard|Released\(\))", re.DOTALL
)


def tracked(*patterns: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [ROOT / line for line in listed.stdout.splitlines()]


def ops_page() -> str:
    """docs/ops.md, from the rows of ops.def."""
    text = (ROOT / "csrc" / "graph" / "ops.def").read_text()
    body = re.sub(r"^//.*$", "", text, flags=re.MULTILINE)
    page = "# Ops\n\nGenerated from `csrc/graph/ops.def` by `python .ci/check_tree.py --write`.\n\n"
    page += "| op | inputs | meaning |\n|---|---|---|\n"
    for name, rest in re.findall(
        r"OP\((\w+), \w+,(.*?)\)\n(?=OP|\s*$)", body + "\n", flags=re.DOTALL
    ):
        inputs, *meaning = re.findall(r'"((?:[^"\\]|\\.)*)"', rest)
        shown = "".join(meaning).replace("|", "\\|")
        page += f"| `{name}` | {inputs} | {shown} |\n"
    return page


def problems_of_cpp() -> list[str]:
    found = []
    for path in tracked("csrc/*.cc", "csrc/*.h", "python/bind", "tests/cpp/*.cc", "tests/cpp/*.h"):
        text, name = path.read_text(), path.relative_to(ROOT)
        found += [f"{name}: {problem}" for problem in dialect.problems(text)]
        if GUARDED_INIT.search(text):
            found.append(f"{name}: call_guard of a py::init: release the GIL in a lambda instead")
    return found


def main() -> None:
    problems = []
    page = ROOT / "docs" / "ops.md"
    if "--write" in sys.argv:
        page.write_text(ops_page())
    if not page.exists() or page.read_text() != ops_page():
        problems.append("docs/ops.md is not what ops.def says: python .ci/check_tree.py --write")
    sources = tracked("*.cc", "*.h", "*.cu", "*.cuh", "*.metal", "*.def", "*.py", "*.pyi")
    for path in sources:
        text = path.read_text()
        name = path.relative_to(ROOT)
        if LICENCE not in text[:200]:
            problems.append(f"{name}: no {LICENCE}")
        if text.count("\n") > MAX_FILE_LINES:
            problems.append(f"{name}: {text.count(chr(10))} lines, at most {MAX_FILE_LINES}")
    problems += problems_of_cpp()
    # Tables that a script wrote are nothing to read.
    core = sum(p.read_text().count("\n") for p in tracked("csrc/*") if p.suffix != ".inc")
    if core > MAX_CORE_LINES:
        problems.append(f"csrc/ has {core} lines, at most {MAX_CORE_LINES}")
    if problems:
        raise SystemExit("\n".join(problems))


if __name__ == "__main__":
    main()
