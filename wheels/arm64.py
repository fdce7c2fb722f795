# SPDX-License-Identifier: Apache-2.0
"""Runs aarch64 wheels on x86-64: Debian's Python for arm64, in a folder, under qemu-aarch64."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

from compile import HERE, run

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = HERE.parent / "build" / "wheels" / "arm64"
PYTHON = "3.11"  # the one that Debian 12 has
PACKAGES = [
    "python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib", "libc6", "libstdc++6",
    "libgcc-s1", "zlib1g", "libexpat1", "libffi8", "libssl3", "libbz2-1.0", "liblzma5",
    "libsqlite3-0", "libuuid1", "libcrypt1",
]  # fmt: skip
# Goldens of the three families, against transformers' numbers, and what they save and load again.
SUITES = [
    "tests/models/test_mpnet_golden.py",
    "tests/models/test_deberta_golden.py",
    "tests/models/test_llama_golden.py",
]
# With dot products, with all that qemu knows, and with neither: the choice of kernels has to hold.
PROCESSORS = ("neoverse-n1", "max", "cortex-a53")
CPP = ["test_kernels.cc", "test_linear.cc", "test_attention.cc", "test_disentangled.cc",
       "test_llama_kernels.cc", "test_math.cc"]  # fmt: skip


def qemu() -> list[str]:
    """Return the emulator's command."""
    for name in ("qemu-aarch64-static", "qemu-aarch64"):
        if path := shutil.which(name):
            return [path, "-L", str(root())]
    raise SystemExit("no qemu-aarch64 here: apt install qemu-user-static, or --no-test")


def root() -> Path:
    """Return a folder with Debian's C library and Python for arm64; the system is not touched."""
    folder = FOLDER / "root"
    if (folder / "usr" / "bin" / f"python{PYTHON}").exists():
        return folder
    state = FOLDER / "apt"
    for part in ("lists/partial", "cache/archives/partial"):
        (state / part).mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    settings = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "Dir::State": state,
        "Dir::State::status": state / "status",
        "Dir::State::lists": state / "lists",
        "Dir::Cache": state / "cache",
        "APT::Sandbox::User": "root",
    }
    apt = ["apt-get", "-qq", *(f"-o{key}={value}" for key, value in settings.items())]
    run(*apt, "update")
    packages = FOLDER / "packages"
    packages.mkdir(exist_ok=True)
    run(*apt, "download", *PACKAGES, cwd=packages)
    for package in packages.glob("*.deb"):
        run("dpkg", "-x", package, folder)
    return folder


def install(wheel: Path, site: Path) -> None:
    """Install a wheel and what its tests need into a folder, from binary packages for aarch64."""
    command = [shutil.which(f"python{PYTHON}") or "python3", "-m", "pip", "install", "-q"]
    command += ["--disable-pip-version-check", "--target", str(site), "--only-binary=:all:"]
    command += ["--python-version", PYTHON, "--implementation", "cp"]
    for glibc in ("2_28", "2_17"):
        command += ["--platform", f"manylinux_{glibc}_aarch64"]
    run(*command, "--platform", "manylinux2014_aarch64", wheel, "pytest", "pytest-xdist",
        "hypothesis", "safetensors", "jinja2", "huggingface_hub", "filelock")  # fmt: skip


def try_under_qemu(wheel: Path, tree: Path, work: Path) -> str:
    """Run goldens of the three families with an installed wheel."""
    if f"-cp{PYTHON.replace('.', '')}-" not in wheel.name:
        return f"not run: Debian has Python {PYTHON} alone"
    if platform.machine() != "x86_64":
        raise SystemExit("this runs aarch64 wheels on x86-64; on aarch64 itself use release.yml")
    site = work / "site"
    install(wheel, site)
    variables = os.environ | {"PYTHONPATH": str(site), "TRINE_CACHE": str(work / "cache")}
    variables |= {"PYTHONDONTWRITEBYTECODE": "1"}
    python = [*qemu(), str(root() / "usr" / "bin" / f"python{PYTHON}")]
    command = [*python, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", *SUITES]
    done = subprocess.run(
        command, cwd=tree, env=variables, capture_output=True, text=True, check=False
    )
    print(f"{wheel.name}: {' '.join(done.stdout.strip().splitlines()[-1:])}", flush=True)
    if done.returncode != 0:
        raise SystemExit(done.stdout[-8000:] + done.stderr[-4000:])
    passed = re.search(r"\d+ passed", done.stdout)
    return f"under qemu-aarch64: {passed and passed[0]}: {' '.join(SUITES)}"


def run_cpp_tests(program: Path) -> str:
    """Run the kernels' C++ tests on each emulated processor."""
    results = []
    for processor in PROCESSORS:
        command = [qemu()[0], "-cpu", processor, *qemu()[1:], program, *CPP]
        printed = run(*command).strip().splitlines()[-1]
        if not re.fullmatch(r"[1-9]\d* passed, 0 failed", printed):
            raise SystemExit(f"{program.name} on {processor}: {printed}")
        print(f"{program.name} on {processor}: {printed}", flush=True)
        results.append(f"{processor}: {printed}")
    return f"C++ tests under qemu-aarch64 ({', '.join(CPP)}): {'; '.join(results)}"
