# SPDX-License-Identifier: Apache-2.0
"""Builds what runs on emulated GPUs by CMake: the plugins of CUDA and Metal, and their tests."""

from __future__ import annotations

import functools
import shutil
import subprocess
from pathlib import Path

from filelock import FileLock

ROOT = Path(__file__).resolve().parents[2]


@functools.cache
def build(target: str) -> Path:
    """Build one target; returns the folder of the build."""
    folder = ROOT / "build" / "emulated"
    folder.parent.mkdir(exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        options = ["-DTRINE_CUDA_EMULATED=ON", "-DTRINE_METAL_EMULATED=ON", "-DTRINE_METAL=OFF"]
        # Kernels are templates by the hundred, and tiny here: compiling takes longer than running.
        options += ["-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_CXX_FLAGS_RELEASE=-O1"]
        options += ["-DTRINE_QUICK=ON"]
        # The folder may remember the ninja of an environment that is gone.
        ninja = f"-DCMAKE_MAKE_PROGRAM={shutil.which('ninja')}"
        run("cmake", "-S", ROOT, "-B", folder, "-G", "Ninja", ninja, *options)
        run("cmake", "--build", folder, "--target", target)
    return folder


def plugin(device: str) -> Path:
    """Build the plugin of "cuda" or "metal"; returns the folder that it lies in."""
    target = {"cuda": "trine_cuda_emulated", "metal": "trine_metal"}[device]
    return build(target) / device


def run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
