# SPDX-License-Identifier: Apache-2.0
"""The CUDA plugin that these tests run on: by default one for an emulated GPU, built here."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).resolve().parents[2]


def build_emulated() -> Path:
    """Build the plugin with the kernels running on the SIMT emulator; returns its folder."""
    folder = ROOT / "build" / "emulated"
    folder.parent.mkdir(exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        options = ["-DTRINE_CUDA_EMULATED=ON", "-DCMAKE_BUILD_TYPE=Release"]
        # Kernels are templates by the hundred, and tiny here: compiling takes longer than running.
        flags = "-DCMAKE_CXX_FLAGS_RELEASE=-O1"
        # The folder may remember the ninja of an environment that is gone.
        ninja = f"-DCMAKE_MAKE_PROGRAM={shutil.which('ninja')}"
        run("cmake", "-S", ROOT, "-B", folder, "-G", "Ninja", ninja, *options, flags)
        run("cmake", "--build", folder, "--target", "trine_cuda_emulated")
    return folder


def run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


@pytest.fixture(scope="session")
def emulated(request: pytest.FixtureRequest) -> bool:
    """Whether the GPU is an emulated one."""
    return bool(request.config.getoption("--device") == "emulated")


@pytest.fixture(scope="session")
def plugin(emulated: bool) -> None:
    """Make ``device="cuda"`` be the emulated GPU, unless ``--device cuda`` asks for a real one."""
    if emulated:
        os.environ["TRINE_PLUGIN_PATH"] = str(build_emulated())
