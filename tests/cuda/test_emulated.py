# SPDX-License-Identifier: Apache-2.0
"""CUDA's kernels on the emulator: tests/gpu/test_<op>.cc with cuda/kernels/<op>*.cu."""

from __future__ import annotations

from typing import TYPE_CHECKING

import build
import pytest

if TYPE_CHECKING:
    from pathlib import Path

TESTS = [
    *(build.ROOT / "tests/gpu").glob("test_*.cc"),
    *(build.ROOT / "tests/cuda").glob("test_*.cc"),
]


def kernels_of(op: str) -> list[str]:
    """The sources of an op, but for those that use wgmma and TMA, which isn't emulated.

    Tests of a part of it say which behind its name.
    """
    op = op.partition("_")[0]
    found = sorted((build.ROOT / "cuda/kernels").glob(f"{op}*.cu"))
    found += (build.ROOT / "tests/cuda").glob(f"probe_{op}.cu")
    return [str(p.relative_to(build.ROOT)) for p in found if "hopper" not in p.name]


@pytest.mark.parametrize("test", sorted(TESTS), ids=lambda test: test.stem)
def test_kernels_on_the_emulator(test: Path) -> None:
    op = test.stem.removeprefix("test_")
    build.run_tests(f"cuda_{op}", [str(test.relative_to(build.ROOT)), *kernels_of(op)])
