# SPDX-License-Identifier: Apache-2.0
"""Runs aarch64 wheels on x86-64: Debian's Python for arm64, in a folder, under qemu-aarch64."""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from compile import HERE, run

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = HERE.parent / "build" / "wheels" / "arm64"
DEBIANS = {"3.11": "bookworm", "3.13": "trixie"}  # each has one Python
# Goldens of the three families against transformers' numbers, compiled files, the package.
SUITES = [
    "tests/models/test_mpnet_golden.py",
    "tests/models/test_deberta_golden.py",
    "tests/models/test_llama_golden.py",
    "tests/models/test_compiled.py",
    "tests/graph/test_graph.py",
    "tests/python/test_package.py",
]
# With dot products, with all that qemu knows, and with neither: the choice of kernels has to hold.
PROCESSORS = ("neoverse-n1", "max", "cortex-a53")
CPP = ["test_kernels.cc", "test_linear.cc", "test_attention.cc", "test_disentangled.cc",
       "test_llama_kernels.cc", "test_math.cc"]  # fmt: skip


def qemu(python: str) -> list[str]:
    """Return the emulator's command, for programs of the Debian that has a Python."""
    for name in ("qemu-aarch64-static", "qemu-aarch64"):
        if path := shutil.which(name):
            return [path, "-L", str(root(python))]
    raise SystemExit("no qemu-aarch64 here: apt install qemu-user-static, or --no-test")


def root(python: str) -> Path:
    """Return a folder with Debian's C library and Python for arm64; the system is not touched."""
    release = DEBIANS[python]
    folder = FOLDER / release
    done = folder / "done"
    if done.exists():
        return folder / "root"
    shutil.rmtree(folder, ignore_errors=True)
    for part in ("lists/partial", "cache/archives/partial", "root"):
        (folder / part).mkdir(parents=True)
    (folder / "status").touch()
    sites = run("apt-get", "indextargets", "--format", "$(CODENAME) $(SITE)", "Origin: Debian")
    site = next((x.split()[1] for x in sites.splitlines() if "-" not in x.split()[0]), None)
    if site is None:
        raise SystemExit("apt-get knows no Debian to take an arm64 Python from; or --no-test")
    sources = folder / "sources.list"
    keys = "/usr/share/keyrings/debian-archive-keyring.gpg"
    sources.write_text(f"deb [signed-by={keys}] {site} {release} main\n")
    settings = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Sandbox::User": "root",
        "Dir::State": folder,
        "Dir::State::status": folder / "status",
        "Dir::State::lists": folder / "lists",
        "Dir::Cache": folder / "cache",
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "/dev/null",
        "Debug::NoLocking": "1",
    }
    apt = ["apt-get", "-qq", "-y", *(f"-o{key}={value}" for key, value in settings.items())]
    run(*apt, "update")
    wanted = [f"python{python}", "libstdc++6"]
    run(*apt, "install", "--download-only", "--no-install-recommends", *wanted)
    # Newer Debians take it for granted that /lib is a link into /usr.
    for name in ("bin", "lib", "sbin"):
        (folder / "root" / "usr" / name).mkdir(parents=True)
        (folder / "root" / name).symlink_to(f"usr/{name}")
    for package in sorted((folder / "cache" / "archives").glob("*.deb")):
        extracted = subprocess.run(
            ["dpkg-deb", "--fsys-tarfile", package], capture_output=True, check=True
        )
        subprocess.run(
            ["tar", "-x", "--keep-directory-symlink", "-C", folder / "root"],
            input=extracted.stdout, check=True,
        )  # fmt: skip
    done.touch()
    return folder / "root"


def install(wheel: Path, python: str, site: Path) -> None:
    """Install a wheel and what its tests need into a folder, from binary packages for aarch64."""
    command = [sys.executable, "-m", "pip", "install", "-q"]
    command += ["--disable-pip-version-check", "--target", str(site), "--only-binary=:all:"]
    command += ["--python-version", python, "--implementation", "cp"]
    for glibc in ("2_28", "2_17"):
        command += ["--platform", f"manylinux_{glibc}_aarch64"]
    run(*command, "--platform", "manylinux2014_aarch64", wheel, "pytest", "pytest-xdist",
        "hypothesis", "safetensors", "jinja2", "huggingface_hub", "filelock")  # fmt: skip


def try_under_qemu(wheel: Path, python: str, tree: Path, work: Path) -> str:
    """Run some of the tests with an installed wheel."""
    if python not in DEBIANS:
        return f"not run: Debian has Python {' and '.join(DEBIANS)} alone"
    if platform.machine() != "x86_64":
        raise SystemExit("this runs aarch64 wheels on x86-64; on aarch64 itself use release.yml")
    site = work / "site"
    install(wheel, python, site)
    variables = os.environ | {"PYTHONPATH": str(site), "TRINE_CACHE": str(work / "cache")}
    variables |= {"PYTHONDONTWRITEBYTECODE": "1"}
    program = work / f"python{python}"
    words = [*qemu(python), str(root(python) / "usr" / "bin" / program.name)]
    program.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    program.chmod(0o755)
    # Tests start interpreters of their own, which without a kernel's help are emulated by name.
    (site / "sitecustomize.py").write_text(f"import sys\nsys.executable = {str(program)!r}\n")
    command = [program, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", *SUITES]
    done = subprocess.run(
        command, cwd=tree, env=variables, capture_output=True, text=True, check=False
    )
    print(f"{wheel.name}: {' '.join(done.stdout.strip().splitlines()[-1:])}", flush=True)
    if done.returncode != 0:
        raise SystemExit(done.stdout[-8000:] + done.stderr[-4000:])
    passed = re.search(r"\d+ passed(?:, \d+ skipped)?", done.stdout)
    return f"under qemu-aarch64, {DEBIANS[python]}: {passed and passed[0]}: {' '.join(SUITES)}"


def run_cpp_tests(program: Path) -> str:
    """Run the kernels' C++ tests on each emulated processor."""
    results = []
    for processor in PROCESSORS:
        emulator, *root_option = qemu(next(iter(DEBIANS)))
        command = [emulator, "-cpu", processor, *root_option, program, *CPP]
        printed = run(*command).strip().splitlines()[-1]
        if not re.fullmatch(r"[1-9]\d* passed, 0 failed", printed):
            raise SystemExit(f"{program.name} on {processor}: {printed}")
        print(f"{program.name} on {processor}: {printed}", flush=True)
        results.append(f"{processor}: {printed}")
    return f"C++ tests under qemu-aarch64 ({', '.join(CPP)}): {'; '.join(results)}"
