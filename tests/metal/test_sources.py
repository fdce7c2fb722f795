# SPDX-License-Identifier: Apache-2.0
"""What Metal is given to compile: each library whole, with every kernel that it is asked for."""

from __future__ import annotations

import os
import re
import subprocess

import emulated
import pytest

LISTED = re.findall(
    r"^  X\((\w+), (\w+)\)",
    (emulated.ROOT / "metal" / "kernels" / "launch.h").read_text(),
    re.MULTILINE,
)


def preprocessed(source: str) -> str:
    """``source`` as Metal's preprocessor leaves it, without Metal's own headers."""
    program = emulated.build("trine_metal_misuse") / "trine_metal_misuse"
    done = subprocess.run([program, "source", source], capture_output=True, text=True, check=True)
    assert '#include "kernels' not in done.stdout
    own = re.sub(r"^ *#include <metal_\w+>$", "", done.stdout, flags=re.MULTILINE)
    assert own.count("#include <metal_stdlib>") == 0
    command = [
        os.environ.get("CXX", "g++"),
        "-E",
        "-P",
        "-x",
        "c++",
        "-D__METAL_VERSION__=240",
        "-",
    ]
    return subprocess.run(command, input=own, capture_output=True, text=True, check=True).stdout


def test_all_kernels_are_listed() -> None:
    assert len(LISTED) == len({name for name, _ in LISTED}) > 50


@pytest.mark.parametrize("source", sorted({source for _, source in LISTED}))
def test_libraries_have_their_kernels(source: str) -> None:
    text = preprocessed(source)
    made = set(re.findall(r'host_name\("(\w+)"\)', text))
    made |= set(re.findall(r"^kernel void (\w+)\(", text, re.MULTILINE))
    missing = {name for name, of in LISTED if of == source} - made
    assert not missing
    assert "#include" not in text
    assert text.count("struct Matrix {") == 1  # args.h once
