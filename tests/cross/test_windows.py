# SPDX-License-Identifier: Apache-2.0
"""The whole core compiles and links for Windows, as C++ library and as Python's module.

Needs ``pip install ziglang pybind11``. Where Debian's wine64 is installed, C++ tests and an example
run on it, too.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import struct
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import zig
from filelock import FileLock

TRIPLE = "x86_64-windows-gnu"
HERE = Path(__file__).resolve().parent
WINE = next(
    (p for p in ("/usr/lib/wine/wine64", shutil.which("wine64")) if p and Path(p).exists()), ""
)
PYTHON = f"python3{sys.version_info.minor}.dll"
# What every Windows has: its own libraries, and the C library that is part of it.
SYSTEM = re.compile(r"(kernel32|advapi32|ntdll|api-ms-win-[\w-]+|ucrtbase)\.dll", re.IGNORECASE)
pytestmark = pytest.mark.skipif(
    not zig.is_there() or importlib.util.find_spec("pybind11") is None,
    reason="needs pip install ziglang pybind11",
)


def link_module(folder: Path) -> None:
    """Link _core.pyd against CPython's headers and an import library made of what they declare.

    Not by CMake, whose search for Python wants one that runs.
    """
    import pybind11

    include = folder / "include"
    if not include.exists():
        shutil.copytree(sysconfig.get_paths()["include"], include)
    shutil.copy(HERE / "pyconfig.h", include)
    names = set()
    for header in include.rglob("*.h"):
        text = header.read_text("utf-8", "replace")
        for kind, name in re.findall(r"PyAPI_(FUNC|DATA)\([^;]*?\)\s*(\w+)\s*[(;\[]", text):
            names.add(name + " DATA" * (kind == "DATA"))
    definition, library = folder / "python.def", folder / "python.lib"
    definition.write_text("\n".join([f"LIBRARY {PYTHON}", "EXPORTS", *sorted(names)]) + "\n")
    zig.run(*zig.ZIG, "dlltool", "-m", "i386:x86-64", "-d", definition, "-l", library)
    sources = sorted((zig.ROOT / "python" / "bind").glob("*.cc"))
    folders = [include, pybind11.get_include(), zig.ROOT / "csrc", zig.ROOT / "python" / "bind"]
    options = ["-std=c++20", "-O1", "-Wall", "-Wextra", "-shared", "-fvisibility=hidden"]
    options += [f"-I{path}" for path in folders]
    inputs = [*sources, folder / "libtrine_core.a", library]
    zig.run(folder / "c++", *options, *inputs, "-o", folder / "_core.pyd")


def system(folder: Path) -> dict[str, str]:
    folder.mkdir(parents=True, exist_ok=True)
    return {
        "CMAKE_SYSTEM_NAME": "Windows",
        "CMAKE_SYSTEM_PROCESSOR": "AMD64",
        "CMAKE_RC_COMPILER": zig.tool(folder, "rc", "rc"),
    }


@pytest.fixture(scope="module")
def built() -> Path:
    """The folder with trine.dll and _core.pyd, and with wine the test program."""
    folder = zig.ROOT / "build" / "windows"
    defines = {**system(folder), "TRINE_TESTS": "ON"}
    targets = ["trine", "trine_core", *["trine_tests"] * bool(WINE)]
    zig.build("windows", TRIPLE, targets, defines)
    with FileLock(folder.with_suffix(".lock")):
        link_module(folder)
    return folder


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


def test_the_module_shows_its_entry_and_needs_python(built: Path) -> None:
    module = Pe(built / "_core.pyd")
    assert module.exports() == {"PyInit__core"}
    assert strangers(module.needed()) == {PYTHON}


def wine(*command: str | Path, folder: Path) -> str:
    settings = {"WINEPREFIX": str(folder), "WINEDEBUG": "-all", "DISPLAY": ""}
    return zig.run(WINE, *command, env=settings)


# Files, threads, compiled models and the C interface.
CASES = ["test_mapped_file", "test_thread_pool", "test_compiled", "test_api"]


@pytest.mark.skipif(not WINE, reason="needs wine64")
def test_the_core_runs_on_wine(built: Path, tmp_path: Path) -> None:
    said = wine(built / "trine_tests.exe", *CASES, folder=tmp_path)
    assert re.search(r"^[1-9]\d* passed, 0 failed", said, flags=re.MULTILINE), said


@pytest.mark.skipif(not WINE, reason="needs wine64")
def test_an_example_finds_the_package_and_runs_on_wine(built: Path, tmp_path: Path) -> None:
    import trine

    name, prefix = "windows-examples", built / "installed"
    zig.run("cmake", "--install", built, "--prefix", prefix)
    defines = {**system(zig.ROOT / "build" / name), "trine_DIR": str(prefix / "lib/cmake/trine")}
    examples = zig.build(name, TRIPLE, ["embed"], defines, zig.ROOT / "examples" / "cpp")
    lines = tmp_path / "lines.txt"
    texts = ["the cat sat", "a dog ran home", "na\u00efve \u5317\u4eac \U0001f600"]
    lines.write_text("\n".join(texts), "utf-8")
    with trine.load(zig.ROOT / "tests" / "golden" / "sentence") as loaded:
        loaded.save(tmp_path / "m.trine")
        vectors = loaded.encode([texts[1], *texts])
    said = wine(
        examples / "embed.exe", tmp_path / "m.trine", lines, texts[1], folder=tmp_path / "w"
    )
    found = dict(line.split(" ", 1)[::-1] for line in said.splitlines())
    wanted = (vectors @ vectors[0] / np.linalg.norm(vectors, axis=1))[1:] / np.linalg.norm(
        vectors[0]
    )
    # Four digits are printed, of bits that another instruction set may round otherwise.
    assert [float(found[text]) for text in texts] == pytest.approx(wanted.tolist(), abs=2e-4)
