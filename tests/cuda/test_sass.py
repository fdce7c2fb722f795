# SPDX-License-Identifier: Apache-2.0
"""What the compiled kernels are: no spills, tensor cores and asynchronous copies where they belong.

``TRINE_CUDA_LIBRARY`` names the plugin where CMake built it, or a folder of cubins:

    for f in cuda/kernels/*.cu; do
      nvcc -std=c++20 -O3 -Icuda -Icsrc -arch=sm_90a -cubin $f -o cubins/$(basename $f .cu).cubin
    done

cuobjdump and nvdisasm come with CUDA, or from PyPI: nvidia-cuda-cuobjdump, nvidia-cuda-nvdisasm.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

LIBRARY = os.environ.get("TRINE_CUDA_LIBRARY")


class Product(NamedTuple):
    """Kernels whose inner loops are matrix products."""

    part: str  # of their names
    multiply: str  # the instruction that does them ...
    copy: str  # ... and the one that fetches their operands, from sm_80 on
    archs: range = range(80, 1000)


PRODUCTS = [
    Product("linear_mmaI13__nv_bfloat16", "HMMA", "LDGSTS"),
    Product("linear_mmaIf", "HMMA", "LDGSTS"),
    Product("linear_mmaIa", "IMMA", "LDGSTS", range(75, 1000)),  # int8
    Product("linear_mmaINS0_6Groups", "IMMA", "LDGSTS", range(75, 1000)),
    Product("linear_hopper", "HGMMA", "UTMALDG", range(90, 91)),
    Product("attention_rows", "HMMA", "LDGSTS"),
    Product("disentangled_rows", "HMMA", "LDGSTS"),
    Product("split_rows", "HMMA", "LDGSTS"),
]

pytestmark = pytest.mark.skipif(
    LIBRARY is None, reason="TRINE_CUDA_LIBRARY names no compiled kernels"
)


class Kernel(NamedTuple):
    arch: int
    name: str
    resources: dict[str, int]
    instructions: Counter[str]


def cuobjdump() -> str:
    packages = Path(sysconfig.get_path("purelib"))
    installed = sorted(packages.glob("nvidia/*/bin/cuobjdump"))
    found = shutil.which("cuobjdump") or (str(installed[-1]) if installed else None)
    assert found is not None, "no cuobjdump: pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm"
    return found


def dump(option: str, file: Path) -> list[str]:
    tool = cuobjdump()
    path = os.pathsep.join([str(Path(tool).parent), os.environ["PATH"]])  # it calls nvdisasm
    done = subprocess.run(
        [tool, option, file],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": path},
        check=True,
    )
    return done.stdout.splitlines()


def kernels_of(file: Path) -> list[Kernel]:
    instructions: dict[tuple[int, str], Counter[str]] = {}
    arch, name = 0, ""
    for line in dump("-sass", file):
        if found := re.search(r"code for sm_(\d+)", line):
            arch = int(found[1])
        elif found := re.search(r"Function : (\S+)", line):
            name = found[1]
        elif found := re.match(r"\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+ )?([A-Z0-9]+)", line):
            instructions.setdefault((arch, name), Counter())[found[1]] += 1
    resources: dict[tuple[int, str], dict[str, int]] = {}
    for line in dump("--dump-resource-usage", file):  # of a cubin it does not say which arch
        if found := re.search(r"arch = sm_(\d+)", line):
            arch = int(found[1])
        elif found := re.search(r"Function (\S+):", line):
            name = found[1]
        elif found := re.findall(r"(REG|STACK|LOCAL|SHARED):(\d+)", line):
            resources[arch, name] = {key: int(value) for key, value in found}
    assert resources.keys() == instructions.keys(), "the dumps were misread"
    return [Kernel(a, n, resources[a, n], instructions[a, n]) for a, n in resources]


@pytest.fixture(scope="module")
def kernels() -> list[Kernel]:
    given = Path(LIBRARY or "")
    files = sorted(given.glob("*.cubin")) if given.is_dir() else [given]
    found = [kernel for file in files for kernel in kernels_of(file)]
    assert found, f"no kernel in {given}"
    return found


def test_all_architectures_have_all_kernels(kernels: list[Kernel]) -> None:
    """Those that the plugin was built for; PTX is for GPUs that come after the last of them."""
    names: dict[int, set[str]] = {}
    for kernel in kernels:
        names.setdefault(kernel.arch, set()).add(kernel.name)
    assert all(own == names[max(names)] for own in names.values())
    library = Path(LIBRARY or "")
    if library.is_dir():
        return
    cache = (library.parent / "CMakeCache.txt").read_text()
    found = re.search(r"^TRINE_CUDA_ARCHITECTURES:\w+=(.*)$", cache, re.MULTILINE)
    assert found
    wanted = found[1].split(";")
    if wanted != ["native"]:
        assert set(names) == {int(re.findall(r"\d+", arch)[0]) for arch in wanted}
    with_ptx = [arch for arch in wanted if arch.isdigit()]
    listed = [line for line in dump("--list-ptx", library) if "PTX file" in line]
    assert {int(n) for line in listed for n in re.findall(r"sm_(\d+)", line)} == set(
        map(int, with_ptx)
    )


def test_nothing_spills(kernels: list[Kernel]) -> None:
    """A spill needs a stack, which nothing else does here."""
    spilled = {
        f"sm_{k.arch} {k.name}": k.resources
        for k in kernels
        if k.resources["STACK"] > 0 or k.resources["LOCAL"] > 0
    }
    assert not spilled


@pytest.mark.parametrize("product", PRODUCTS, ids=lambda product: product.part)
def test_products_run_on_tensor_cores(kernels: list[Kernel], product: Product) -> None:
    """A kernel that only sets up another, or has no rows to multiply, isn't called so."""
    if all(k.arch not in product.archs for k in kernels):
        pytest.skip("compiled for GPUs that have other kernels")
    own = [k for k in kernels if product.part in k.name and k.arch in product.archs]
    assert own, f"no kernel is called {product.part}"
    for instruction in (product.multiply, product.copy):
        without = [
            f"sm_{k.arch} {k.name}"
            for k in own
            if k.instructions[instruction] == 0 and (k.arch >= 80 or instruction != product.copy)
        ]
        assert not without, instruction
