# SPDX-License-Identifier: Apache-2.0
"""Compiles one wheel with zig's clang, for any target, from an unpacked sdist."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import ziglang

if TYPE_CHECKING:
    from targets import Target

HERE = Path(__file__).resolve().parent
ZIG = Path(ziglang.__file__).with_name("zig")
# -O3 is CMake's, too, but not where it looks what the compiler is: that would cost a second libc++.
COMMON = ["-O3", "-fno-omit-frame-pointer"]


def run(*command: object, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Return what a command prints; its output is shown where it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words, cwd=cwd, env=os.environ | (env or {}), capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise SystemExit(
            f"{shlex.join(words)}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
        )
    return done.stdout


def pins(*names: str) -> list[str]:
    """Return the lines of requirements.txt that pin these packages."""
    listed = (HERE / "requirements.txt").read_text().splitlines()
    return [line for line in listed if line.split("==")[0] in names]


def write_tools(target: Target, folder: Path) -> Path:
    """Write the compilers and archivers as programs that CMake can call."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, words in {
        "cc": ["cc", "-target", target.zig],
        "c++": ["c++", "-target", target.zig],
        "ar": ["ar"],
        "ranlib": ["ranlib"],
    }.items():
        path = folder / name
        lines = ["#!/bin/sh"]
        if target.system == "Darwin":  # zig's linker crashes on bundles; Python loads either
            lines.append('for word; do shift; [ "$word" = -bundle ] && word=-dynamiclib')
            lines.append('set -- "$@" "$word"; done')
        lines.append(f'exec {shlex.join([str(ZIG), *words])} "$@"')
        path.write_text("\n".join(lines) + "\n")
        path.chmod(0o755)
    return folder


def cmake_defines(target: Target, tools: Path, python: str | None) -> dict[str, str]:
    """Return what CMake is told; ``python`` is left out where the C++ alone is built."""
    defines = {
        "CMAKE_C_COMPILER": str(tools / "cc"),
        "CMAKE_CXX_COMPILER": str(tools / "c++"),
        "CMAKE_AR": str(tools / "ar"),
        "CMAKE_RANLIB": str(tools / "ranlib"),
        "CMAKE_SYSTEM_NAME": target.system,
        "CMAKE_SYSTEM_PROCESSOR": target.processor,
        # Whatever else CMake and pybind11 would try costs a build of libc++ for each variant.
        "CMAKE_TRY_COMPILE_TARGET_TYPE": "STATIC_LIBRARY",
        "CMAKE_INTERPROCEDURAL_OPTIMIZATION": "OFF",
        "CMAKE_EXPORT_COMPILE_COMMANDS": "ON",
        "CMAKE_STRIP": "",
    }
    if target.system == "Darwin":
        # Nothing of an SDK is used: zig has the libraries' stubs.
        defines |= {"CMAKE_OSX_SYSROOT": "", "CMAKE_INSTALL_NAME_TOOL": "/bin/true"}
        defines |= {"CMAKE_OSX_DEPLOYMENT_TARGET": "", "CMAKE_OSX_ARCHITECTURES": ""}
    if python is not None:
        defines["PYTHON_MODULE_EXTENSION"] = target.module(python)
    return defines


def flags(target: Target, *folders: Path) -> str:
    """Return the compiler flags: no path of this machine goes into the objects."""
    maps = [f"-ffile-prefix-map={folder}=." for folder in folders]
    # Taken out into files of its own on Linux; for macOS zig's linker cannot leave it out.
    debug = ["-g"] if target.is_linux else []
    return shlex.join([*COMMON, *debug, *maps])


def link_flags(target: Target) -> str:
    """Return what the linker is told beside what CMake says."""
    # -S: without it a Mach-O library names the object files that it was linked from.
    return "-Wl,--build-id=sha1 -Wl,-z,relro,-z,now" if target.is_linux else "-Wl,-S"


def forget_python(build: Path) -> None:
    """Let the next Python be found in a build folder, so that the core is compiled once for all."""
    cache = build / "CMakeCache.txt"
    if not cache.exists():
        return
    # Comments go, too: CMake cannot read one without its entry.
    of_python = re.compile(
        r"//|_?(?:Python|PYTHON|pybind11|PYBIND11|FIND_PACKAGE_MESSAGE_DETAILS_Python)"
    )
    kept = [line for line in cache.read_text().splitlines() if not of_python.match(line)]
    cache.write_text("\n".join(kept) + "\n")
    # With this file, scikit-build-core would start anew in every environment.
    (build / ".skbuild-info.json").unlink()


def compile_wheel(
    target: Target, python: str, interpreter: Path, source: Path, work: Path, epoch: int
) -> Path:
    """Return the wheel as the compiler made it, with its debug information."""
    tools = write_tools(target, work / "tools")
    build = work / "cmake"
    forget_python(build)
    options = {
        "build-dir": str(build),
        "install.strip": "false",
        **{f"cmake.define.{k}": v for k, v in cmake_defines(target, tools, python).items()},
    }
    folders = (build, source, HERE.parent / "build" / "wheels", ZIG.parent)
    environment = {
        "PATH": f"{interpreter.parent}{os.pathsep}{os.environ['PATH']}",
        "CFLAGS": flags(target, *folders),
        "CXXFLAGS": flags(target, *folders),
        "LDFLAGS": link_flags(target),
        "SOURCE_DATE_EPOCH": str(epoch),
        "CMAKE_BUILD_PARALLEL_LEVEL": str(os.cpu_count() or 1),
        "_PYTHON_HOST_PLATFORM": target.host_platform,
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    if target.system == "Darwin":
        environment["ARCHFLAGS"] = ""
    # Spelt out: the pip of Python 3.10 knows no -C.
    settings = [f"--config-settings={key}={value}" for key, value in options.items()]
    raw = work / "raw" / python
    command = [interpreter, "-m", "pip", "wheel", "--disable-pip-version-check", "--no-deps"]
    run(*command, "--no-build-isolation", "-w", raw, *settings, source, env=environment)
    (wheel,) = raw.glob("*.whl")
    return wheel


def compile_tests(source: Path, work: Path, tests: Path, names: list[str]) -> Path:
    """Compile some of the C++ tests with a finished build's core; returns the program."""
    program = work / "trine_tests"
    files = [tests / "cpp" / name for name in ("main.cc", "amx_emulated.cc", *names)]
    options = ["-O2", "-std=c++20", "-ffp-contract=off", f"-I{source / 'csrc'}"]
    core = work / "cmake" / "libtrine_core.a"
    run(work / "tools" / "c++", *options, *files, core, "-lpthread", "-o", program)
    return program


def command_lines(build: Path, source: Path) -> list[dict[str, object]]:
    """Return each distinct set of compiler flags with the files that were compiled with it."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for entry in json.loads((build / "compile_commands.json").read_text()):
        words = shlex.split(entry["command"])[1:]
        cut = words.index("-o")
        words = words[:cut]
        words = [w.replace(str(source), ".").replace(str(build), "build") for w in words]
        kept = [w for w in words if not w.startswith(("-I", "-ffile-prefix-map"))]
        skip = {i + 1 for i, w in enumerate(kept) if w == "-isystem"}
        kept = [w for i, w in enumerate(kept) if w != "-isystem" and i not in skip]
        name = entry["file"].replace(f"{source}/", "")
        groups.setdefault(tuple(kept), []).append(name)
    return [{"flags": list(k), "sources": sorted(v)} for k, v in sorted(groups.items())]


def compiler_version() -> str:
    """Return what the compiler says of itself."""
    zig = run(ZIG, "version").strip()
    clang = run(ZIG, "c++", "--version").splitlines()[0]
    return f"zig {zig}, {clang}"
