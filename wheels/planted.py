# SPDX-License-Identifier: Apache-2.0
"""Plants one fault after the other in a wheel and sees that its check finds it.

build/wheels/tools/bin/python wheels/planted.py WHEEL
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import archive
import check

if TYPE_CHECKING:
    from collections.abc import Callable


def edit(path: Path, old: str, new: str) -> None:
    """Replace a text in a file that has it."""
    text = path.read_text()
    if old not in text:
        raise SystemExit(f"{path.name} lacks {old!r}")
    path.write_text(text.replace(old, new))


def patch(path: Path, old: bytes, new: bytes) -> None:
    """Replace bytes in a library by as many others."""
    data = path.read_bytes()
    if old not in data or len(old) != len(new):
        raise SystemExit(f"{path.name} lacks {old!r}")
    path.write_bytes(data.replace(old, new))


def library(folder: Path) -> Path:
    """Return the C++ library."""
    return next((folder / "trine" / "cpp" / "lib").glob("libtrine.*"))


def info(folder: Path) -> Path:
    """Return the folder of metadata."""
    return next(folder.glob("*.dist-info"))


def big(folder: Path) -> None:
    (folder / "trine" / "data" / "more.npz").write_bytes(b"\0" * check.MAX_BYTES)


def dependency(folder: Path) -> None:
    edit(
        info(folder) / "METADATA",
        "Requires-Dist: numpy",
        "Requires-Dist: torch\nRequires-Dist: numpy",
    )


def licence(folder: Path) -> None:
    (info(folder) / "licenses" / "wheels" / "THIRD-PARTY.txt").unlink()


def notice(folder: Path) -> None:
    edit(info(folder) / "licenses" / "wheels" / "THIRD-PARTY.txt", "Wenzel Jakob", "Nobody")


def tag(folder: Path) -> None:
    edit(info(folder) / "WHEEL", "Tag: cp3", "Tag: cp2")


def no_types(folder: Path) -> None:
    (folder / "trine" / "_core.pyi").unlink()


def foreign_file(folder: Path) -> None:
    (folder / "trine" / "notes.txt").write_text("")


def foreign_package(folder: Path) -> None:
    (folder / "tests").mkdir()
    (folder / "tests" / "__init__.py").write_text("")


def shown_symbol(folder: Path) -> None:
    patch(library(folder), b"\0trine_model_free\0", b"\0drine_model_free\0")


def needed_library(folder: Path) -> None:
    patch(library(folder), b"libdl.so.2", b"libxy.so.2")


def changed_library(folder: Path) -> None:
    patch(library(folder), b"InputError", b"InputErroR")


def build_path(folder: Path) -> None:
    path = library(folder).parent / "pkgconfig" / "trine.pc"
    path.write_text(path.read_text() + "Builder: /home/someone/trine\n")


def cmake(folder: Path) -> None:
    path = library(folder).parent / "cmake" / "trine" / "trineConfig-release.cmake"
    edit(path, "${_IMPORT_PREFIX}/trine/cpp", "${_IMPORT_PREFIX}")


FAULTS: tuple[tuple[Callable[[Path], None], str], ...] = (
    (big, "at most"),
    (dependency, "dependencies"),
    (licence, "licence files"),
    (notice, "licence"),
    (tag, "tags"),
    (no_types, "lacks"),
    (foreign_file, "has ["),
    (foreign_package, "has ["),
    (shown_symbol, "shows"),
    (needed_library, "needs"),
    (changed_library, "not its content's"),
    (build_path, "/home/someone"),
    (cmake, "CMake package"),
)


def caught(wheel: Path, work: Path) -> str:
    """Return what the checks say of a wheel, or nothing."""
    debug = work / "debug"
    if not debug.exists() and (wheel.parent / "debug").exists():
        shutil.copytree(wheel.parent / "debug", debug)
    try:
        check.check_wheel(work / wheel.name, *check.target_of(wheel))
    except AssertionError as error:
        return str(error)
    return ""


def main() -> None:
    """Plant each fault in the wheel that is named."""
    wheel = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        for fault, expected in FAULTS:
            folder = archive.unpack(wheel, work / fault.__name__)
            fault(folder)
            archive.pack(folder, work / wheel.name, 0, level=1)
            said = caught(wheel, work)
            if expected not in said:
                raise SystemExit(f"planted {fault.__name__}, the checks said {said!r}")
        # RECORD is made anew by pack, so its fault is planted in the archive itself.
        folder = archive.unpack(wheel, work / "record")
        edit(info(folder) / "RECORD", "trine/hub.py,sha256=", "trine/hub.py,sha256=A")
        shutil.make_archive(str(work / "record"), "zip", folder)
        (work / "record.zip").replace(work / wheel.name)
        if "RECORD: hash" not in (said := caught(wheel, work)):
            raise SystemExit(f"planted a wrong hash, the checks said {said!r}")
    print(f"{len(FAULTS) + 1} planted faults, all found")


if __name__ == "__main__":
    main()
