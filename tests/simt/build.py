# SPDX-License-Identifier: Apache-2.0
"""Builds programs of emulated kernels with plain g++.

    python tests/simt/build.py [--kind plain|address|thread] NAME SOURCE...

prints the program's path. Objects are made again when they or their headers have changed.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from filelock import FileLock

ROOT = Path(__file__).resolve().parents[2]
# Sources that are compiled as one: most of their time goes into headers that they share.
EMULATOR, REFERENCE = "build/simt/emulator.cc", "build/simt/reference.cc"
ONE = {
    EMULATOR: [
        f"tests/simt/{name}.cc"
        for name in ("block", "fiber", "fragments", "launch", "metal", "shared_memory", "warp")
    ],
    # What tests of kernels compare with and how they fill their matrices.
    REFERENCE: [
        *(
            str(p.relative_to(ROOT))
            for p in sorted((ROOT / "csrc/ref").glob("*.cc"))
            if p.name != "backend.cc"
        ),
        *(f"csrc/exec/{name}.cc" for name in ("common", "distances", "rotary")),
        *(f"csrc/weights/{name}.cc" for name in ("blocks", "convert")),
    ],
}
INCLUDES = ["-Itests", "-Icuda", "-Icsrc"]
# Metal's kernels have headers of the same names.
METAL_INCLUDES = ["-I.", "-Itests", "-Imetal", "-Icuda", "-Icsrc"]
# Attributes of MSL, and parameters that all kernels have.
METAL_WARNINGS = ["-Wno-attributes", "-Wno-unused-parameter"]
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]  # nvcc's `#pragma unroll`
SANITIZERS = {
    "plain": [],
    "address": ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    "thread": ["-fsanitize=thread"],
}
LAUNCHER = os.environ.get("CMAKE_CXX_COMPILER_LAUNCHER")  # CMake's name for what may be ccache
COMPILER = [*([LAUNCHER] if LAUNCHER else []), os.environ.get("CXX", "g++")]
# What a sanitizer is told at run time: TSan remembers more, so that it knows both stacks.
ENVIRONMENT = {"TSAN_OPTIONS": "history_size=7 exitcode=66", "UBSAN_OPTIONS": "print_stacktrace=1"}


def flags(source: str, kind: str) -> list[str]:
    metal = source.endswith(".metal") or source.startswith("tests/metal/")
    common = ["-std=c++20", "-g1", *WARNINGS, *(METAL_INCLUDES if metal else INCLUDES)]
    if source.endswith(".metal"):
        common += METAL_WARNINGS
    if source == EMULATOR:  # not instrumented, see fiber.cc
        told = {"plain": [], "address": ["-DSIMT_ASAN"], "thread": ["-DSIMT_TSAN"]}[kind]
        return [*common, "-O2", *told]
    return [*common, "-O1", "-DTRINE_SIMT", *SANITIZERS[kind]]


def stale(product: Path, depfile: Path) -> bool:
    if not product.exists() or not depfile.exists():
        return True
    names = depfile.read_text().replace("\\\n", " ").split(":", 1)[1].split()
    made = product.stat().st_mtime
    return any(not (ROOT / n).exists() or (ROOT / n).stat().st_mtime > made for n in names)


def run(command: list[str]) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(" ".join(command) + "\n" + done.stderr[-8000:])


def compiled(source: str, kind: str, define: str) -> Path:
    """Compile one source if it or its headers have changed."""
    own = define if source.startswith("tests/gpu/") else ""
    product = ROOT / "build" / "simt" / kind / own / (source.replace("/", "_") + ".o")
    product.parent.mkdir(parents=True, exist_ok=True)
    depfile = product.with_suffix(".d")
    if source in ONE:
        text = "".join(f'#include "../../{part}"\n' for part in ONE[source])
        if not (ROOT / source).exists() or (ROOT / source).read_text() != text:
            (ROOT / source).write_text(text)
    if stale(product, depfile):
        options = [*flags(source, kind), "-MMD", "-MF", str(depfile)]
        options += [f"-D{own}"] if own else []
        run([*COMPILER, "-x", "c++", *options, "-c", source, "-o", str(product)])
    return product


def build(name: str, sources: list[str], kind: str = "plain", define: str = "") -> Path:
    """Build one program; paths are relative to the tree, the emulator is added.

    ``define`` is a macro for sources in tests/gpu, which are compiled for each device.
    """
    program = ROOT / "build" / "simt" / kind / name
    jobs = len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(jobs) as pool:
        objects = list(pool.map(lambda s: compiled(s, kind, define), [*sources, EMULATOR]))
    made = program.stat().st_mtime if program.exists() else 0.0
    if any(made <= product.stat().st_mtime for product in objects):
        run([*COMPILER, *SANITIZERS[kind], *map(str, objects), "-o", str(program)])
    return program


def run_tests(name: str, sources: list[str], define: str = "") -> None:
    """Build a program of C++ tests and run it.

    ``SIMT_KIND=address`` or ``thread`` builds with sanitizers; ``SIMT_SCHEDULE`` picks the order in
    which threads run (tests/simt/block.h): by default what shows most races as wrong results.
    """
    kind = os.environ.get("SIMT_KIND", "plain")
    lock = ROOT / "build" / f"simt-{kind}.lock"
    lock.parent.mkdir(exist_ok=True)
    with FileLock(lock):
        program = build(name, [*sources, "tests/cpp/main.cc", REFERENCE], kind, define)
    environment = {"SIMT_SCHEDULE": "greedy:1", **os.environ, **ENVIRONMENT}
    done = subprocess.run([program], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-8000:]
    assert re.search(r"^[1-9]\d* passed, 0 failed$", done.stdout, re.MULTILINE), done.stdout


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", choices=SANITIZERS, default="plain")
    parser.add_argument("name")
    parser.add_argument("sources", nargs="+")
    parser.add_argument("--define", default="")
    given = parser.parse_args()
    print(build(given.name, given.sources, given.kind, given.define))
