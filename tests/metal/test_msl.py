# SPDX-License-Identifier: Apache-2.0
"""Metal's kernels as a C++ compiler sees them: types with address spaces, and what MSL forbids.

No compiler for the Metal Shading Language exists outside of Apple's systems. clang checks C++14
with address spaces against declarations written from the specification (tests/metal/msl).
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
KERNELS = sorted((ROOT / "metal/kernels").glob("*.metal"))
CLANG = next(
    (c for c in ("clang++", *(f"clang++-{v}" for v in range(22, 13, -1))) if shutil.which(c)), None
)
FLAGS = [
    "--target=arm64-apple-macos11",  # there every clang has _Float16; for x86-64 it came with 15
    *("-x", "c++", "-std=c++14", "-pedantic-errors", "-D__METAL_VERSION__=240"),
    *("-Wall", "-Wextra", "-Werror", "-Wno-unknown-attributes", "-Wno-unused-parameter"),
    *("-fno-exceptions", "-fno-rtti", "-nostdinc", "-nostdinc++", "-Itests/metal/msl", "-Imetal"),
]
# Clang's names for what MSL has not.
FORBIDDEN = "|".join(
    [
        *("LambdaExpr", "CXXNewExpr", "CXXDeleteExpr", "GotoStmt"),
        *(r"CXXMethodDecl[^\n]* virtual", r"VarDecl[^\n]*thread_local"),
    ]
)

needs_clang = pytest.mark.skipif(CLANG is None, reason="no clang: apt-get install clang")


def clang(source: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [CLANG or "", *FLAGS, *more, str(source)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def recursive(source: Path) -> set[str]:
    """Functions that call themselves, directly or not, by clang's intermediate code."""
    done = clang(source, "-O0", "-S", "-emit-llvm", "-o", "-")
    assert done.returncode == 0, done.stderr
    calls: dict[str, set[str]] = {}
    own: set[str] = set()
    for line in done.stdout.splitlines():
        if found := re.match(r'define .*? @"?([^\s"(]+)"?\(', line):
            own = calls.setdefault(found[1], set())
        elif found := re.search(r'call .*? @"?([^\s"(]+)"?\(', line):
            own.add(found[1])
    assert calls, "no function was found"
    reach = {name: set(called) for name, called in calls.items()}
    for _ in calls:
        for seen in reach.values():
            seen |= {more for name in tuple(seen) for more in reach.get(name, ())}
    return {name for name, seen in reach.items() if name in seen}


def complaints(source: Path) -> str:
    """What is wrong with a source; empty if nothing."""
    checked = clang(source, "-fsyntax-only")
    if checked.returncode != 0:
        return checked.stderr
    tree = clang(source, "-fsyntax-only", "-Xclang", "-ast-dump", "-fno-color-diagnostics").stdout
    assert "FunctionDecl" in tree
    if found := re.search(FORBIDDEN, tree):
        return f"forbidden: {found[0]}"
    if names := recursive(source):
        return f"recursive: {names}"
    return ""


@needs_clang
@pytest.mark.parametrize("source", KERNELS, ids=lambda source: source.stem)
def test_types_and_language(source: Path) -> None:
    assert complaints(source) == ""


START = "kernel void scale("
FAULTS = {
    "address space": (
        "store4(y, args.y, b, col, args.cols, sum);",
        "store4(partial, args.y, b, col, args.cols, sum);",
        "no matching function|address space",
    ),
    "thread pointer": (
        START,
        f"inline float bad(device float* x) {{ float* y = x; return *y; }}\n{START}",
        "changes address space|cannot initialize",
    ),
    "none": (START, f"inline void good(constant MapArgs& a) {{}}\n{START}", ""),
    "write to constant": (
        START,
        f"inline void bad(device const float* x) {{ x[0] = 1.0f; }}\n{START}",
        "read-only|not assignable",
    ),
    "two types": (
        START,
        f"inline int bad(int x, uint y) {{ return min(x, y); }}\n{START}",
        "ambiguous",
    ),
    "C++17": (
        START,
        f"inline int bad() {{ if (int x = 1; x) return x; return 0; }}\n{START}",
        "C\\+\\+17",
    ),
    "exception": (START, f"inline void bad() {{ throw 1; }}\n{START}", "exceptions disabled"),
    "lambda": (
        START,
        f"inline int bad() {{ return [] {{ return 1; }}(); }}\n{START}",
        "LambdaExpr",
    ),
    "virtual": (
        START,
        f"struct Bad {{ virtual void f() {{}} }};\n{START}",
        "forbidden: CXXMethodDecl",
    ),
    "recursion": (
        START,
        f"""int odd(int x);
int even(int x) {{ return x == 0 ? 1 : odd(x - 1); }}
int odd(int x) {{ return x == 0 ? 0 : even(x - 1); }}
{START}""",
        "recursive: .*(odd|even)",
    ),
    "no such function": (
        START,
        f"inline float bad(float x) {{ return erf(x); }}\n{START}",
        "undeclared",
    ),
}


@needs_clang
@pytest.mark.parametrize("name", FAULTS)
def test_planted_fault_is_reported(name: str, tmp_path: Path) -> None:
    old, new, expected = FAULTS[name]
    text = (ROOT / "metal/kernels/rows.metal").read_text()
    assert text.count(old) == 1
    copy = tmp_path / "rows.metal"
    copy.write_text(text.replace(old, new))
    found = complaints(copy)
    assert re.search(expected, found) if expected else found == "", found


def test_buffers_are_numbered_in_order() -> None:
    """The registry counts on it: parameter i is buffer i, the thread's position comes last."""
    kernels = 0
    for source in KERNELS:
        for name, parameters in re.findall(
            r"\nkernel void (\w+)\((.*?)\) \{", source.read_text(), re.DOTALL
        ):
            kernels += 1
            *buffers, last = re.split(r",\s*", parameters)
            assert last == "TRINE_THREAD", name
            numbers = [re.search(r"\[\[buffer\((\d+)\)\]\]$", b) for b in buffers]
            assert [n and int(n[1]) for n in numbers] == list(range(len(buffers))), name
            assert len(buffers) <= 31, name
    assert kernels >= 17


@needs_clang
@pytest.mark.parametrize("source", KERNELS, ids=lambda source: source.stem)
def test_kernels_are_listed_with_their_file(source: Path) -> None:
    text = (ROOT / "metal/kernels/launch.h").read_text()
    listed = {
        k
        for k, file in re.findall(r"^ +X\((\w+), (\w+)\)", text, re.MULTILINE)
        if file == source.stem
    }
    expanded = clang(source, "-E").stdout
    found = set(re.findall(r"typedef decltype\([^;]*\) (\w+)_t;", expanded))
    found |= set(re.findall(r"^TRINE_OWN_KERNEL\((\w+)\)", source.read_text(), re.MULTILINE))
    assert listed == found
    assert listed


def test_constants_are_in_constant_memory() -> None:
    """MSL takes no variable of a program in another address space."""
    for source in [*KERNELS, *(ROOT / "metal/kernels").glob("*.h")]:
        if source.name == "launch.h":  # the host's
            continue
        bare = re.findall(
            r"^(?:static |inline )*(?:const|constexpr) \w+ \w+(?:\[\w+\])? =.*",
            source.read_text(),
            re.MULTILINE,
        )
        assert not bare, source
