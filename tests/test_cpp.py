# SPDX-License-Identifier: Apache-2.0
"""Builds the C++ tests and runs each source file's tests as one pytest case."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted(p.name for p in (ROOT / "tests" / "cpp").glob("test_*.cc"))


@pytest.fixture(scope="session")
def binary() -> Path:
    """Path of the test program; ``TRINE_TEST_BINARY`` names one already built, say for ASan."""
    given = os.environ.get("TRINE_TEST_BINARY")
    if given:
        return Path(given)
    build = ROOT / "build" / "tests"
    build.mkdir(parents=True, exist_ok=True)
    with FileLock(build / ".lock"):
        # The folder may remember the ninja of an environment that is gone.
        ninja = f"-DCMAKE_MAKE_PROGRAM={shutil.which('ninja')}"
        configure = ["cmake", "-S", str(ROOT), "-B", str(build), "-G", "Ninja", ninja]
        configure += ["-DTRINE_TESTS=ON", "-DTRINE_QUICK=ON"]
        for command in (configure, ["cmake", "--build", str(build), "--target", "trine_tests"]):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-8000:]
    return build / "trine_tests"


@pytest.mark.parametrize("source", SOURCES)
def test_cpp(binary: Path, source: str) -> None:
    done = subprocess.run([binary, source], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-4000:]
    last = re.fullmatch(r"(\d+) passed, 0 failed", done.stdout.strip().splitlines()[-1])
    assert last is not None, done.stdout
    assert int(last[1]) > 0, f"{source} has no test"


@pytest.mark.skipif(
    "TRINE_TEST_BINARY" in os.environ, reason="looks at the objects of the default build"
)
def test_objects_with_isa_flags_show_their_table_alone(binary: Path) -> None:
    """An inline function of a header compiled for AVX-512 must not become everybody's copy."""
    objects = list(binary.parent.rglob("cpu/isa/*.o"))
    assert len(objects) >= 3
    for path in objects:
        command = ["nm", "-C", "--defined-only", "--extern-only", path]
        listed = subprocess.run(command, capture_output=True, text=True, check=True)
        own = f"trine::cpu::{path.name.split('.')[0]}::"
        shown = [line.split(maxsplit=2)[2] for line in listed.stdout.splitlines()]
        assert all(name.startswith(own) for name in shown), (path.name, shown)
