# SPDX-License-Identifier: Apache-2.0
"""The whole core compiles and links for Windows, as C++ library.

Needs ``pip install ziglang``. Where Debian's wine64 is installed, C++ tests run
on it, too.
"""

from __future__ import annotations

import re
import shutil
import struct
from pathlib import Path

import pytest
import zig

TRIPLE = "x86_64-windows-gnu"
WINE = next(
    (p for p in ("/usr/lib/wine/wine64", shutil.which("wine64")) if p and Path(p).exists()), ""
)
# What every Windows has: its own libraries, and the C library that is part of it.
SYSTEM = re.compile(r"(kernel32|advapi32|ntdll|api-ms-win-[\w-]+|ucrtbase)\.dll", re.IGNORECASE)
pytestmark = pytest.mark.skipif(not zig.is_there(), reason=zig.MISSING)


def system(folder: Path) -> dict[str, str]:
    folder.mkdir(parents=True, exist_ok=True)
    return {
        "CMAKE_SYSTEM_NAME": "Windows",
        "CMAKE_SYSTEM_PROCESSOR": "AMD64",
        "CMAKE_RC_COMPILER": zig.tool(folder, "rc", "rc"),
    }


@pytest.fixture(scope="module")
def built() -> Path:
    """The folder with trine.dll, and with wine the test program."""
    folder = zig.ROOT / "build" / "windows"
    defines = {**system(folder), "TRINE_TESTS": "ON"}
    targets = ["trine", *["trine_tests"] * bool(WINE)]
    return zig.build("windows", TRIPLE, targets, defines)


class Pe:
    """What a library for 64-bit Windows says of itself."""

    def __init__(self, path: Path) -> None:
        self.data = path.read_bytes()
        (at,) = struct.unpack_from("<I", self.data, 0x3C)
        assert self.data[at : at + 4] == b"PE\0\0"
        machine, count, _, _, _, size, _ = struct.unpack_from("<HHIIIHH", self.data, at + 4)
        assert machine == 0x8664  # x86-64
        optional = at + 24
        assert self.data[optional : optional + 2] == b"\x0b\x02"  # 64 bits
        self.sections = [
            struct.unpack_from("<4I", self.data, optional + size + 40 * i + 8) for i in range(count)
        ]
        self.export_table, _, self.import_table = struct.unpack_from(
            "<3I", self.data, optional + 112
        )

    def at(self, address: int) -> int:
        """Return where what is mapped at an address lies in the file."""
        for _, start, size, offset in self.sections:
            if start <= address < start + size:
                return offset + address - start
        raise ValueError(address)

    def text(self, address: int) -> str:
        begin = self.at(address)
        return self.data[begin : self.data.index(b"\0", begin)].decode()

    def exports(self) -> set[str]:
        table = self.at(self.export_table)
        (count,) = struct.unpack_from("<I", self.data, table + 24)
        (names,) = struct.unpack_from("<I", self.data, table + 32)
        addresses = struct.unpack_from(f"<{count}I", self.data, self.at(names))
        return {self.text(address) for address in addresses}

    def needed(self) -> set[str]:
        table, found = self.at(self.import_table), set()
        while (name := struct.unpack_from("<I", self.data, table + 12)[0]) != 0:
            found.add(self.text(name))
            table += 20
        return found


def strangers(names: set[str]) -> set[str]:
    return {name for name in names if not SYSTEM.fullmatch(name)}


def test_the_library_shows_the_c_interface_and_needs_windows_alone(built: Path) -> None:
    library = Pe(built / "trine.dll")
    header = (zig.ROOT / "csrc" / "trine_c.h").read_text()
    declared = set(re.findall(r"^TRINE_API .*?(trine_\w+)\(", header, flags=re.MULTILINE))
    assert "trine_model_run" in declared
    assert library.exports() == declared
    assert strangers(library.needed()) == set()
    assert (built / "libtrine.dll.a").exists()


def wine(*command: str | Path, folder: Path) -> str:
    settings = {"WINEPREFIX": str(folder), "WINEDEBUG": "-all", "DISPLAY": ""}
    return zig.run(WINE, *command, env=settings)


# Files, threads, compiled models and the C interface.
CASES = ["test_mapped_file", "test_thread_pool", "test_compiled", "test_api"]


@pytest.mark.skipif(not WINE, reason="needs wine64")
def test_the_core_runs_on_wine(built: Path, tmp_path: Path) -> None:
    said = wine(built / "trine_tests.exe", *CASES, folder=tmp_path)
    assert re.search(r"^[1-9]\d* passed, 0 failed", said, flags=re.MULTILINE), said
