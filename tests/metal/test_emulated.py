# SPDX-License-Identifier: Apache-2.0
"""Metal's kernels on the emulator: tests/gpu/test_<op>.cc, which tests CUDA's, too."""

from __future__ import annotations

import build
import pytest

KERNELS = [str(p.relative_to(build.ROOT)) for p in sorted((build.ROOT / "metal").glob("*/*.metal"))]
OPS = sorted(p.stem.removeprefix("test_") for p in (build.ROOT / "tests/gpu").glob("test_*.cc"))


@pytest.mark.parametrize("op", OPS)
def test_kernels_on_the_emulator(op: str) -> None:
    sources = [f"tests/gpu/test_{op}.cc", "tests/metal/launches.cc", *KERNELS]
    build.run_tests(f"metal_{op}", sources, "TRINE_METAL")
