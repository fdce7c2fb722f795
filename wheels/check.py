# SPDX-License-Identifier: Apache-2.0
"""What is promised of a wheel, looked up in its file. Nothing of it is run.

    build/wheels/tools/bin/python wheels/check.py WHEEL...

The target is what the file's name says; a wheel that was built for this machine alone
(``linux_x86_64``) is one more.
"""

from __future__ import annotations

import csv
import re
import sys
import tarfile
import tempfile
from email.parser import Parser
from pathlib import Path
from typing import TYPE_CHECKING

import archive
import binaries
from packaging.requirements import Requirement
from packaging.tags import parse_tag
from packaging.utils import parse_wheel_filename
from targets import PYTHONS, TARGETS, Target, wheel_tag

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_BYTES = 8_000_000
MAX_SDIST = 2_000_000
NOTICES = {"LICENSE", "wheels/THIRD-PARTY.txt"}
SOURCES = re.compile(
    r"(?:csrc|cuda|metal|python)/.+|CMakeLists\.txt|pyproject\.toml|README\.md|PKG-INFO|LICENSE"
    r"|wheels/THIRD-PARTY\.txt"
)
DEPENDENCIES = {"numpy", "tokenizers"}
# Folders of builders; a wheel is for machines that have none of them.
PATHS = re.compile(
    rb"/(?:tmp|home|root|work|workspace|Users|private|builds?|opt|var/tmp)/[\w./+-]+"
)
SYSTEM_LIBRARIES = {
    "Linux": re.compile(r"lib(?:c|m|dl|rt|pthread)\.so\.\d|ld-linux-[\w-]+\.so\.\d"),
    "Darwin": re.compile(r"/usr/lib/libSystem\.B\.dylib"),
}
# Built from source for one machine, a wheel has that machine's C++ library.
OWN_LIBRARIES = re.compile(
    r"lib(?:c|m|dl|rt|pthread|stdc\+\+|gcc_s)\.so\.\d|ld-linux-[\w-]+\.so\.\d"
)
MACHINES = {"x86_64": "EM_X86_64", "aarch64": "EM_AARCH64", "arm64": "arm64"}
# What zig's linker shows on macOS whatever a list of exports says: weak operators, its own names.
MACOS_OPERATORS = re.compile(r"__Zn[wa].*|__Zd[la].*|___dso_handle|__mh_dylib_header")
HEADERS = ("trine.h", "trine_c.h")
CMAKE = ("trineConfig.cmake", "trineConfig-release.cmake", "trineConfigVersion.cmake")


class Wheel:
    """An unpacked wheel and what it was made for."""

    def __init__(self, path: Path, folder: Path, target: Target | None, python: str) -> None:
        self.path, self.folder, self.target, self.python = path, folder, target, python
        (self.info,) = folder.glob("*.dist-info")
        self.files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
        self.metadata = Parser().parsestr((self.info / "METADATA").read_text())
        libraries = [f for f in self.files if f.endswith((".so", ".dylib", ".pyd", ".dll"))]
        self.binaries = {f: binaries.read(folder / f) for f in libraries}

    def module(self) -> str:
        """Return the extension module's name."""
        suffix = self.target.module(self.python) if self.target else ""
        named = [f for f in self.binaries if re.fullmatch(r"trine/_core\.[\w.-]+", f)]
        require(len(named) == 1, f"one extension module, not {named}")
        require(named[0].endswith(suffix), f"{named[0]} ends in {suffix}")
        return named[0]

    def library(self) -> str:
        """Return the C++ library's name."""
        name = self.target.library if self.target else "libtrine.so"
        return f"trine/cpp/lib/{name}"

    def plugins(self) -> set[str]:
        """Return the names of the devices' libraries."""
        if self.target:
            return {f"trine/{name}" for name in self.target.plugins}
        return {f for f in self.binaries if re.fullmatch(r"trine/libtrine_\w+\.\w+", f)}


def require(condition: object, what: str) -> None:
    """Fail with what was promised."""
    if not condition:
        raise AssertionError(what)


def size(wheel: Wheel) -> None:
    """Less than 8 MB, packed and unpacked."""
    packed = wheel.path.stat().st_size
    installed = sum((wheel.folder / name).stat().st_size for name in wheel.files)
    print(f"{wheel.path.name}: {packed / 1e6:.2f} MB, {installed / 1e6:.2f} MB installed")
    require(max(packed, installed) < MAX_BYTES, f"{installed} bytes, at most {MAX_BYTES}")


def tags(wheel: Wheel) -> None:
    """The name's tags are those of the file WHEEL and of the target."""
    said = Parser().parsestr((wheel.info / "WHEEL").read_text())
    require(said["Root-Is-Purelib"] == "false", "Root-Is-Purelib: false")
    _, _, _, named = parse_wheel_filename(wheel.path.name)
    listed = frozenset().union(*map(parse_tag, said.get_all("Tag")))
    require(named == listed, f"tags of the name, {named}, and of WHEEL, {listed}")
    if wheel.target:
        wanted = parse_tag(f"{wheel_tag(wheel.python)}-{wheel.target.plat}")
        require(named == wanted, f"tags {wanted}, not {named}")


def metadata(wheel: Wheel) -> None:
    """Name, version, licence; numpy and tokenizers are all that an installation brings."""
    name, version, _, _ = parse_wheel_filename(wheel.path.name)
    require(wheel.metadata["Name"] == name == "trine", "Name: trine")
    require(wheel.metadata["Version"] == str(version), f"Version: {version}")
    needs = [Requirement(text) for text in wheel.metadata.get_all("Requires-Dist")]
    plain = {r.name for r in needs if r.marker is None or "extra" not in str(r.marker)}
    require(plain == DEPENDENCIES, f"dependencies {DEPENDENCIES}, not {plain}")
    require(wheel.metadata["Requires-Python"] == f">={PYTHONS[0]}", "Requires-Python")
    require(wheel.metadata["License-Expression"] == "Apache-2.0", "License-Expression")
    listed = wheel.metadata.get_all("License-File") or []
    require(set(listed) == NOTICES, f"License-File: {listed}")
    missing = [f for f in listed if not (wheel.info / "licenses" / f).exists()]
    require(not missing, f"licence files {missing}")


def notices(wheel: Wheel) -> None:
    """The licences of what is linked in are those that the build tools carry."""
    from importlib.metadata import files

    text = (wheel.info / "licenses" / "wheels" / "THIRD-PARTY.txt").read_text()
    for package, name in (("pybind11", "LICENSE"), ("ziglang", "ziglang/LICENSE")):
        found = [f for f in files(package) or [] if str(f).endswith(f"licenses/{name}")]
        found = found or [f for f in files(package) or [] if str(f) == name]
        require(found, f"{package} is installed with {name}")
        require(found[0].read_text().strip() in text, f"THIRD-PARTY.txt has {package}'s licence")
    require(
        "Apache License v2.0 with LLVM Exceptions" in text, "THIRD-PARTY.txt has LLVM's licence"
    )


def record(wheel: Wheel) -> None:
    """RECORD lists every file, with its hash and size."""
    name = f"{wheel.info.name}/RECORD"
    rows = list(csv.reader((wheel.folder / name).read_text().splitlines()))
    listed = {row[0] for row in rows}
    require(len(listed) == len(rows), "RECORD lists a file once")
    require(listed == wheel.files, f"RECORD: {sorted(listed ^ wheel.files)}")
    for path, digest, length in rows:
        if path == name:
            continue
        data = (wheel.folder / path).read_bytes()
        require(digest == archive.record_digest(data), f"RECORD: hash of {path}")
        require(int(length) == len(data), f"RECORD: size of {path}")


def contents(wheel: Wheel) -> None:
    """The package, its types, its headers and CMake package; nothing else."""
    kinds = {".py", ".pyi", ".typed", ".npz", ".h", ".cmake", ".pc"}
    info = wheel.info.name
    cpp = "trine/cpp"
    wanted = {
        "trine/__init__.py", "trine/py.typed", "trine/_core.pyi", wheel.module(), wheel.library(),
        *wheel.plugins(),
        f"{cpp}/lib/pkgconfig/trine.pc",
        *(f"{cpp}/include/{name}" for name in HEADERS),
        *(f"{cpp}/lib/cmake/trine/{name}" for name in CMAKE),
    }  # fmt: skip
    require(wanted <= wheel.files, f"lacks {sorted(wanted - wheel.files)}")
    odd = [
        name
        for name in wheel.files - wanted
        if not name.startswith(f"{info}/")
        and (not name.startswith("trine/") or Path(name).suffix not in kinds | {Path(name).name})
    ]
    require(not odd, f"has {odd}")
    libraries = {wheel.module(), wheel.library(), *wheel.plugins()}
    require(set(wheel.binaries) == libraries, f"libraries {libraries}, not {set(wheel.binaries)}")
    config = (wheel.folder / cpp / "lib/cmake/trine/trineConfig-release.cmake").read_text()
    where = "${_IMPORT_PREFIX}/trine/" + wheel.library().removeprefix("trine/")
    require(where in config, f"the CMake package points at {where}")


def symbols(wheel: Wheel) -> None:
    """Nothing is visible but the entries of module and plugins, and the library's C interface."""
    under = "_" if wheel.target and wheel.target.system == "Darwin" else ""
    for name, binary in wheel.binaries.items():
        exports = {x for x in binary.exports if not (under and MACOS_OPERATORS.fullmatch(x))}
        if name == wheel.module():
            require(exports == {f"{under}PyInit__core"}, f"{name} shows {sorted(exports)[:9]}")
        elif name in wheel.plugins():
            require(exports == {f"{under}trine_plugin"}, f"{name} shows {sorted(exports)[:9]}")
        else:
            odd = sorted(x for x in exports if not x.startswith(f"{under}trine_"))
            require(not odd, f"{name} shows {odd[:9]}")
            require(f"{under}trine_model_run" in exports, f"{name} shows trine_model_run")


def dependencies(wheel: Wheel) -> None:
    """Only the system's C library is asked for, old enough; no search path."""
    for name, binary in wheel.binaries.items():
        allowed = SYSTEM_LIBRARIES[wheel.target.system] if wheel.target else OWN_LIBRARIES
        odd = [x for x in binary.needed if not allowed.fullmatch(x) and x != binary.name]
        require(not odd, f"{name} needs {odd}")
        require(not binary.paths, f"{name} searches {binary.paths}")
        if wheel.target and wheel.target.is_linux:
            oldest = tuple(map(int, wheel.target.zig.partition("gnu.")[2].split(".")))
            require(binary.glibc <= oldest, f"{name} needs glibc {binary.glibc}, {oldest} is said")
    names = {Path(wheel.library()).name, f"@rpath/{Path(wheel.library()).name}"}
    require(wheel.binaries[wheel.library()].name in names, "the library's own name is relative")


def machine(wheel: Wheel) -> None:
    """Compiled for the target: processor, oldest system, and no executable stack."""
    for name, binary in wheel.binaries.items():
        require(not binary.executable_stack, f"{name}: the stack is executable")
        if wheel.target is None:
            continue
        wanted = MACHINES[wheel.target.processor]
        require(binary.machine == wanted, f"{name}: {binary.machine}, not {wanted}")
        if wheel.target.is_linux:
            require(not binary.lazy, f"{name}: bound at first call, not at load")
        else:
            system = "macos " + wheel.target.zig.rpartition("macos.")[2]
            require(binary.minimum_os == system, f"{name}: {binary.minimum_os}, not {system}")


def debug(wheel: Wheel) -> None:
    """Debug information lies beside the wheel, under the libraries' build IDs."""
    for name, binary in wheel.binaries.items():
        require(not binary.has_debug, f"{name} has debug information")
        if not wheel.target or not wheel.target.is_linux:
            continue
        require(not binary.has_symbols, f"{name} has a table of local symbols")
        folder = wheel.path.parent / "debug" / f"{wheel_tag(wheel.python)}-{wheel.target.name}"
        made = binaries.content_id(wheel.folder / name).hex()
        require(binary.build_id == made, f"{name}: build ID {binary.build_id}, not its content's")
        if folder.parent.exists():  # a wheel may be moved without it
            apart = binaries.read(folder / binaries.debug_file(made))
            require(apart.has_debug, f"{name}: debug information at its build ID")
            require(apart.build_id == made, f"{name}: build ID of its debug information")


def paths(wheel: Wheel) -> None:
    """No file names a folder of the machine that built it."""
    if wheel.target is None:  # which stays on that machine
        return
    for name in sorted(wheel.files):
        found = PATHS.search((wheel.folder / name).read_bytes())
        require(found is None, f"{name} has {found and found[0]!r}")


CHECKS: tuple[Callable[[Wheel], None], ...] = (
    size, tags, metadata, notices, record, contents, symbols, dependencies, machine, debug, paths,
)  # fmt: skip


def check_wheel(path: Path, target: Target | None, python: str) -> list[str]:
    """Run every check; returns their names, and raises AssertionError at the first that fails."""
    with tempfile.TemporaryDirectory() as folder:
        wheel = Wheel(path, archive.unpack(path, Path(folder)), target, python)
        for check in CHECKS:
            check(wheel)
    return [check.__name__ for check in CHECKS]


def check_sdist(path: Path) -> None:
    """What it takes to build the package, and no more."""
    with tarfile.open(path) as opened:
        names = [m.name.partition("/")[2] for m in opened.getmembers() if m.isfile()]
    odd = [name for name in names if not SOURCES.fullmatch(name)]
    require(not odd, f"{path.name} has {odd[:9]}")
    lacking = {"CMakeLists.txt", "csrc/trine.h", "python/trine/_core.pyi", *NOTICES} - set(names)
    require(not lacking, f"{path.name} lacks {lacking}")
    size = path.stat().st_size
    require(size < MAX_SDIST, f"{path.name}: {size} bytes, at most {MAX_SDIST}")
    print(f"{path.name}: {len(names)} files, {size / 1e6:.2f} MB")


def target_of(path: Path) -> tuple[Target | None, str]:
    """Return what a wheel's name says that it is for."""
    _, tag, platforms = path.stem.rsplit("-", 2)
    python = re.sub(r"cp(\d)(\d+)", r"\1.\2", tag)  # of the ABI: with its t
    for target in TARGETS.values():
        if set(platforms.split(".")) <= set(target.plat.split(".")):
            return target, python
    return None, python


def main() -> None:
    """Check the files that are named."""
    for name in sys.argv[1:]:
        done = check_wheel(Path(name), *target_of(Path(name)))
        print(f"{Path(name).name}: {', '.join(done)}")


if __name__ == "__main__":
    main()
