# SPDX-License-Identifier: Apache-2.0
"""The kernels' tests on the emulator: each tests/cuda/test_<op>.cc with cuda/kernels/<op>.cu.

``SIMT_KIND=address`` or ``thread`` builds with sanitizers; ``SIMT_SCHEDULE`` picks the order in
which threads run (tests/simt/block.h): by default the one that shows most races as wrong results.
tests/simt/run_sanitized runs the others and the sanitizers.
"""

from __future__ import annotations

import os
import re
import subprocess

import build
import pytest
from filelock import FileLock

KIND = os.environ.get("SIMT_KIND", "plain")
OPS = sorted(p.stem.removeprefix("test_") for p in (build.ROOT / "tests/cuda").glob("test_*.cc"))
# What the tests compare with and how they fill their matrices.
REFERENCE = [
    *(
        str(p.relative_to(build.ROOT))
        for p in sorted((build.ROOT / "csrc/ref").glob("*.cc"))
        if p.name != "backend.cc"
    ),
    "csrc/exec/common.cc",
    "csrc/exec/distances.cc",
    "csrc/exec/rotary.cc",
    "csrc/weights/blocks.cc",
    "csrc/weights/convert.cc",
]
SCHEDULE = os.environ.get("SIMT_SCHEDULE", "greedy:1")


def kernels_of(op: str) -> list[str]:
    """The sources of an op, but for those that use wgmma and TMA, which isn't emulated."""
    found = sorted((build.ROOT / "cuda/kernels").glob(f"{op}*.cu"))
    found += (build.ROOT / "tests/cuda").glob(f"probe_{op}.cu")
    return [str(p.relative_to(build.ROOT)) for p in found if "hopper" not in p.name]


@pytest.mark.parametrize("op", OPS)
def test_kernels_on_the_emulator(op: str) -> None:
    own = [f"tests/cuda/test_{op}.cc", *kernels_of(op), "tests/cpp/main.cc"]
    lock = build.ROOT / "build" / f"simt-{KIND}.lock"
    lock.parent.mkdir(exist_ok=True)
    with FileLock(lock):
        program = build.build(f"cuda_{op}", [*own, *REFERENCE], KIND)
    environment = {**os.environ, **build.ENVIRONMENT, "SIMT_SCHEDULE": SCHEDULE}
    done = subprocess.run([program], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-8000:]
    assert re.search(r"^[1-9]\d* passed, 0 failed$", done.stdout, re.MULTILINE), done.stdout
