# SPDX-License-Identifier: Apache-2.0
"""Cross-compiles the tree with zig's clang, at -O1: shows that it compiles and links there."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from filelock import FileLock

ROOT = Path(__file__).resolve().parents[2]
ZIG = [sys.executable, "-m", "ziglang"]
MISSING = "cross-compiling needs pip install ziglang"


def is_there() -> bool:
    return importlib.util.find_spec("ziglang") is not None


def run(*command: str | Path, env: dict[str, str] | None = None) -> str:
    """Run a command that must succeed without a warning; return what it says."""
    environment = os.environ | (env or {})
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-8000:]
    assert "warning:" not in said, said[-8000:]
    return said


def tool(folder: Path, name: str, *words: str) -> str:
    path = folder / name
    path.write_text(f'#!/bin/sh\nexec {shlex.join([*ZIG, *words])} "$@"\n')
    path.chmod(0o755)
    return str(path)


def build(name: str, triple: str, targets: list[str], defines: dict[str, str]) -> Path:
    """Build CMake targets for another system in build/NAME; return that folder."""
    folder = ROOT / "build" / name
    folder.mkdir(parents=True, exist_ok=True)
    defines = {
        "CMAKE_MAKE_PROGRAM": shutil.which("ninja") or "ninja",
        "CMAKE_CXX_COMPILER": tool(folder, "c++", "c++", "-target", triple),
        "CMAKE_AR": tool(folder, "ar", "ar"),
        "CMAKE_RANLIB": tool(folder, "ranlib", "ranlib"),
        # Each variant that CMake tries is another build of libc++.
        "CMAKE_TRY_COMPILE_TARGET_TYPE": "STATIC_LIBRARY",
        "CMAKE_INTERPROCEDURAL_OPTIMIZATION": "OFF",
        "CMAKE_BUILD_TYPE": "Release",
        "CMAKE_CXX_FLAGS_RELEASE": "-O1",
        **defines,
    }
    with FileLock(folder.with_suffix(".lock")):
        options = [f"-D{name}={value}" for name, value in defines.items()]
        run("cmake", "-S", ROOT, "-B", folder, "-G", "Ninja", *options)
        jobs = str(len(os.sched_getaffinity(0)))
        run("cmake", "--build", folder, "-j", jobs, "--target", *targets)
    return folder
