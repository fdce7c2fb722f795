# SPDX-License-Identifier: Apache-2.0
"""The installed package: its size, its imports, and what its extension module shows to others."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import trine

MAX_BYTES = 8_000_000
LIGHT = (
    "import sys, trine; heavy = {'numpy', 'tokenizers'} & set(sys.modules); assert not heavy, heavy"
)


def main() -> None:
    files = importlib.metadata.files("trine") or []
    size = sum(Path(str(f.locate())).stat().st_size for f in files if "__pycache__" not in f.parts)
    print(f"installed: {size / 1e6:.2f} MB")
    assert size < MAX_BYTES, size
    module = next(
        Path(str(f.locate()))
        for f in files
        if f.name.startswith("_core") and f.suffix in (".so", ".pyd")
    )
    listed = subprocess.run(
        ["nm", "-D", "--defined-only", module], capture_output=True, text=True, check=True
    )
    shown = [line.split()[-1] for line in listed.stdout.splitlines()]
    assert shown == ["PyInit__core"], shown
    # tests/test_installed.py looks at what the C++ library shows.
    lib = Path(trine.cmake_prefix()) / "lib"
    assert {"trine.pc", "trineConfig.cmake"} <= {p.name for p in lib.rglob("*")}, lib
    subprocess.run([sys.executable, "-c", LIGHT], check=True)


if __name__ == "__main__":
    main()
