# SPDX-License-Identifier: Apache-2.0
"""Command line of wheels/build."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import archive
import manifest
from arm64 import CPP, run_cpp_tests
from check import check_sdist, check_wheel
from compile import compile_tests, compile_wheel, run
from pythons import find_python, make_build_environment, own_version
from repair import repair
from targets import PYTHONS, TARGETS, Target
from trial import try_wheel

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
EXAMPLES = """
examples:
  wheels/build                          a manylinux wheel for the Python that runs this
  wheels/build --twice linux-x86_64     every Python's, each built twice and compared
  wheels/build --all --twice            everything
"""


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="wheels/build",
        description="Build, repair, check and test binary wheels.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; see --python"
    )
    parser.add_argument("--all", action="store_true", help="every target and every Python")
    parser.add_argument(
        "--python",
        action="append",
        metavar="3.N[t]",
        help=f"may be repeated; by default {', '.join(PYTHONS)} if targets are named",
    )
    parser.add_argument("--twice", action="store_true", help="build twice and compare the bytes")
    parser.add_argument("--no-test", action="store_true", help="check, but run nothing")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="run half of the tests",
    )
    parser.add_argument("--sdist", action="store_true", help="make the sdist and nothing else")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="by default dist/")
    return parser.parse_args()


def source_epoch() -> int:
    """Return the time that archives carry: the commit's, or what SOURCE_DATE_EPOCH says."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    return int(given or run("git", "log", "-1", "--format=%ct", cwd=ROOT))


def make_sdist(output: Path, epoch: int) -> Path:
    """Return the source distribution that every wheel is built from."""
    folder = output / "sdist"
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "-o", folder, ROOT]
    run(*command, env={"SOURCE_DATE_EPOCH": str(epoch)})
    (made,) = folder.glob("*.tar.gz")
    finished = output / made.name
    made.replace(finished)
    folder.rmdir()
    return finished


def build(
    target: Target, pythons: list[str], sdist: Path, output: Path, epoch: int, *, test: bool = False
) -> list[dict[str, Any]]:
    """Build and repair wheels of one target in a new folder; returns their manifest entries."""
    entries = []
    with tempfile.TemporaryDirectory(prefix="trine-wheel-") as name:
        work = Path(name)
        # zig keeps objects there; its C++ library, the same for all, stays in the global cache.
        os.environ["ZIG_LOCAL_CACHE_DIR"] = str(work / "zig")
        shutil.unpack_archive(sdist, work / "source")
        (source,) = (work / "source").iterdir()
        for python in pythons:
            started = time.monotonic()
            folder = ROOT / "build" / "wheels" / python
            interpreter = make_build_environment(find_python(python), folder)
            raw = compile_wheel(target, python, interpreter, source, work, epoch)
            wheel, debug = repair(target, raw, output, work / python, epoch)
            print(f"{wheel.name}: built in {time.monotonic() - started:.0f} s", flush=True)
            entries.append(manifest.entry(target, python, wheel, debug, work / "cmake", source))
        if test and target.name == "linux-aarch64":
            program = compile_tests(source, work, ROOT / "tests", CPP)
            entries[0]["cpp_tests"] = run_cpp_tests(program)
    return entries


def main() -> None:
    """Do what the command line says."""
    options = parse()
    os.environ.setdefault("ZIG_GLOBAL_CACHE_DIR", str(Path(tempfile.gettempdir()) / "trine-zig"))
    names = list(TARGETS) if options.all else options.targets or ["linux-x86_64"]
    if unknown := set(names) - set(TARGETS):
        raise SystemExit(f"no target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    named = options.all or options.targets
    pythons = options.python or (list(PYTHONS) if named else [own_version()])
    output = options.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    epoch = source_epoch()
    sdist = make_sdist(output, epoch)
    check_sdist(sdist)
    if options.sdist:
        return
    entries = []
    for target in (TARGETS[name] for name in names):
        made = build(target, pythons, sdist, output, epoch, test=not options.no_test)
        if options.twice:  # in another folder, in another order
            again = build(target, pythons[::-1], sdist, output / "again", epoch)
            for entry, other in zip(made, again[::-1], strict=True):
                compare(output / str(entry["file"]), output / "again" / str(other["file"]))
        for entry, python in zip(made, pythons, strict=True):
            wheel = output / str(entry["file"])
            entry["checks"] = check_wheel(wheel, target, python)
            if not options.no_test:
                interpreter = find_python(python)
                tests = try_wheel(wheel, target, python, interpreter, quick=options.quick)
                entry["tests"] = tests
        entries += made
    shutil.rmtree(output / "again", ignore_errors=True)
    manifest.write(output, sdist, entries, epoch)


def compare(wheel: Path, other: Path) -> None:
    """Compare two builds of one wheel, made in different folders."""
    if archive.sha256(wheel) == archive.sha256(other):
        print(f"{wheel.name}: two builds, same bytes", flush=True)
        return
    with tempfile.TemporaryDirectory() as name:
        first = archive.unpack(wheel, Path(name) / "first")
        second = archive.unpack(other, Path(name) / "second")
        differ = [
            path.relative_to(first).as_posix()
            for path in sorted(first.rglob("*"))
            if path.is_file()
            and path.read_bytes() != (second / path.relative_to(first)).read_bytes()
        ]
    raise SystemExit(f"{wheel.name}: two builds differ in {differ}")


if __name__ == "__main__":
    main()
