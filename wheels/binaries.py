# SPDX-License-Identifier: Apache-2.0
"""Reads what a wheel's libraries say of themselves: ELF with pyelftools, Mach-O by hand."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from hashlib import sha1
from typing import TYPE_CHECKING

from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection
from elftools.elf.sections import SymbolTableSection

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class Binary:
    """What is checked of a library."""

    machine: str
    exports: set[str] = field(default_factory=set)
    needed: set[str] = field(default_factory=set)
    name: str = ""  # SONAME or install name
    paths: list[str] = field(default_factory=list)  # RPATH, RUNPATH
    build_id: str = ""
    has_debug: bool = False
    has_symbols: bool = False
    executable_stack: bool = False
    lazy: bool = (
        False  # whether functions are bound at their first call, so that its table is writable
    )
    glibc: tuple[int, ...] = ()
    minimum_os: str = ""


def read(path: Path) -> Binary:
    """Read a library of either format."""
    magic = path.read_bytes()[:4]
    if magic == b"\x7fELF":
        return read_elf(path)
    if magic == b"\xcf\xfa\xed\xfe":
        return read_macho(path)
    raise ValueError(f"{path.name} is neither ELF nor 64-bit Mach-O")


def read_elf(path: Path) -> Binary:  # noqa: C901
    """Read an ELF library."""
    with path.open("rb") as file:
        elf = ELFFile(file)
        binary = Binary(machine=elf["e_machine"], lazy=True)
        for segment in elf.iter_segments("PT_GNU_STACK"):
            binary.executable_stack = bool(segment["p_flags"] & 1)
        for section in elf.iter_sections():
            if section.name == ".note.gnu.build-id":
                binary.build_id = next(section.iter_notes())["n_desc"]
            elif section.name == ".debug_info":
                binary.has_debug = section["sh_type"] != "SHT_NOBITS"
            elif section.name == ".symtab":
                binary.has_symbols = True
            elif section.name == ".dynsym" and isinstance(section, SymbolTableSection):
                binary.exports = {
                    symbol.name
                    for symbol in section.iter_symbols()
                    if symbol["st_shndx"] != "SHN_UNDEF" and symbol.name
                }
            elif isinstance(section, DynamicSection):
                read_dynamic(section, binary)
            elif isinstance(section, GNUVerNeedSection):
                for _, versions in section.iter_versions():
                    for version in versions:
                        if found := re.fullmatch(r"GLIBC_(\d+(?:\.\d+)+)", version.name):
                            number = tuple(map(int, found[1].split(".")))
                            binary.glibc = max(binary.glibc, number)
    return binary


def find_build_id(path: Path) -> tuple[int, int]:
    """Return where in an ELF file its build ID begins and ends."""
    with path.open("rb") as file:
        section = ELFFile(file).get_section_by_name(".note.gnu.build-id")
        if section is None:
            raise ValueError(f"{path.name} has no build ID")
        name, size = struct.unpack_from("<II", section.data())  # the lengths of both
        start = section["sh_offset"] + 12 + (name + 3) // 4 * 4
    return start, start + size


def content_id(path: Path) -> bytes:
    """Return the build ID of an ELF file's content: the SHA-1 of all but the ID itself."""
    start, end = find_build_id(path)
    data = bytearray(path.read_bytes())
    data[start:end] = bytes(end - start)
    return sha1(data, usedforsecurity=False).digest()[: end - start]


def write_build_id(path: Path, build_id: bytes) -> None:
    """Put another build ID of the same length into an ELF file."""
    start, end = find_build_id(path)
    data = bytearray(path.read_bytes())
    if end - start != len(build_id):
        raise ValueError(f"{path.name} has a build ID of {end - start} bytes, not {len(build_id)}")
    data[start:end] = build_id
    path.write_bytes(data)


def debug_file(build_id: str) -> str:
    """Return where debuggers look for an ID below their folder of debug information."""
    return f".build-id/{build_id[:2]}/{build_id[2:]}.debug"


def read_dynamic(section: DynamicSection, binary: Binary) -> None:
    """Read the dynamic section."""
    for tag in section.iter_tags():
        kind = tag.entry.d_tag
        if kind == "DT_NEEDED":
            binary.needed.add(tag.needed)
        elif kind == "DT_SONAME":
            binary.name = tag.soname
        elif kind == "DT_RPATH":
            binary.paths.append(tag.rpath)
        elif kind == "DT_RUNPATH":
            binary.paths.append(tag.runpath)
        elif kind == "DT_BIND_NOW" or (kind == "DT_FLAGS" and tag.entry.d_val & 8):
            binary.lazy = False


def read_macho(path: Path) -> Binary:  # noqa: C901
    """Read a 64-bit little-endian Mach-O library."""
    data = path.read_bytes()
    cpu, _, kind, count = struct.unpack_from("<4xIIII", data)
    if kind not in (6, 8):
        raise ValueError(f"{path.name} is neither a dylib nor a bundle: file type {kind}")
    binary = Binary(machine={0x0100000C: "arm64", 0x01000007: "x86_64"}.get(cpu, hex(cpu)))
    at = 32
    for _ in range(count):
        command, size = struct.unpack_from("<II", data, at)
        body = data[at : at + size]
        text = body[struct.unpack_from("<I", body, 8)[0] :].partition(b"\0")[0].decode("latin-1")
        command &= 0x7FFFFFFF
        if command == 0x0D:  # LC_ID_DYLIB
            binary.name = text
        elif command in (0x0C, 0x18, 0x1F):  # LC_LOAD_DYLIB, weak, re-exported
            binary.needed.add(text)
        elif command == 0x1C:  # LC_RPATH
            binary.paths.append(text)
        elif command == 0x1B:  # LC_UUID
            binary.build_id = body[8:24].hex()
        elif command == 0x32:  # LC_BUILD_VERSION
            system, minimum = struct.unpack_from("<II", body, 8)
            name = {1: "macos"}.get(system, str(system))
            binary.minimum_os = f"{name} {minimum >> 16}.{minimum >> 8 & 255}"
        elif command == 0x02:  # LC_SYMTAB
            symbols, number, strings, _ = struct.unpack_from("<IIII", body, 8)
            for i in range(number):
                name_at, type_, section = struct.unpack_from("<IBB", data, symbols + 16 * i)
                if type_ & 0xE0:  # for debuggers
                    binary.has_debug = True
                elif type_ & 0x01 and not type_ & 0x10 and section:  # defined, for others to see
                    start = strings + name_at
                    binary.exports.add(data[start : data.index(b"\0", start)].decode())
        elif command == 0x19:  # LC_SEGMENT_64
            segment = body[8:24].rstrip(b"\0")
            binary.has_debug |= segment == b"__DWARF"
        at += size
    return binary
