# SPDX-License-Identifier: Apache-2.0
"""The Metal plugin compiles and links for macOS on Apple silicon, by zig's clang.

With it does what it brings along of the core: readers, graphs, the executor.

Needs ``pip install ziglang``; nothing of an SDK is used. What is made is a Mach-O library that was
never run: this shows that the source compiles there, and what the library asks of the system.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest
import zig

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(not zig.is_there(), reason=zig.MISSING)


@pytest.fixture(scope="module")
def built() -> Path:
    """The folder with libtrine_metal.dylib."""
    defines = {
        "CMAKE_SYSTEM_NAME": "Darwin",
        "CMAKE_SYSTEM_PROCESSOR": "arm64",
        "CMAKE_INSTALL_NAME_TOOL": "true",
        "CMAKE_OSX_SYSROOT": "",
        "CMAKE_OSX_DEPLOYMENT_TARGET": "",
        "CMAKE_OSX_ARCHITECTURES": "",
    }
    return zig.build("macos", "aarch64-macos.13.0", ["trine_metal"], defines)


def load_commands(data: bytes) -> list[tuple[int, bytes]]:
    magic, cpu, _, kind, count, _, _ = struct.unpack_from("<7I", data)
    assert magic == 0xFEEDFACF  # 64 bits
    assert cpu == 0x0100000C  # arm64
    assert kind == 6  # a dynamic library
    found, at = [], 32
    for _ in range(count):
        command, size = struct.unpack_from("<2I", data, at)
        found.append((command, data[at : at + size]))
        at += size
    return found


def needed(data: bytes) -> set[str]:
    """Libraries that must be there when this one is loaded."""
    text = [c[struct.unpack_from("<I", c, 8)[0] :] for k, c in load_commands(data) if k == 0xC]
    return {name.split(b"\0")[0].decode() for name in text}


def exported(data: bytes) -> set[str]:
    """Symbols that are defined here and seen by others."""
    (symtab,) = [c for k, c in load_commands(data) if k == 0x2]
    offset, count, strings, _ = struct.unpack_from("<4I", symtab, 8)
    names = set()
    for i in range(count):
        name, kind = struct.unpack_from("<IB", data, offset + 16 * i)
        if kind & 0xE0 == 0 and kind & 0x11 == 0x01 and kind & 0x0E != 0:
            start = strings + name
            names.add(data[start : data.index(b"\0", start)].decode())
    return names


def test_it_needs_nothing_but_the_system(built: Path) -> None:
    data = (built / "libtrine_metal.dylib").read_bytes()
    assert needed(data) == {"/usr/lib/libSystem.B.dylib"}
    assert "_trine_plugin" in exported(data)


def test_the_plugin_is_for_this_os(built: Path) -> None:
    (version,) = [
        c for k, c in load_commands((built / "libtrine_metal.dylib").read_bytes()) if k == 0x32
    ]
    platform, least = struct.unpack_from("<2I", version, 8)
    assert (platform, least) == (1, 13 << 16)  # macOS 13.0
