# SPDX-License-Identifier: Apache-2.0
"""Where wheels come from, as a file beside them: hashes, compiler, flags, commit."""

from __future__ import annotations

import json
import zipfile
from hashlib import sha256
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import archive
from compile import HERE, command_lines, compiler_version, link_flags, run
from repair import objcopy

if TYPE_CHECKING:
    from pathlib import Path

    from targets import Target


def entry(
    target: Target, python: str, wheel: Path, debug: Path, build: Path, source: Path
) -> dict[str, Any]:
    """Describe one wheel."""
    with zipfile.ZipFile(wheel) as opened:
        files = {name: sha256(opened.read(name)).hexdigest() for name in sorted(opened.namelist())}
    made: dict[str, Any] = {
        "file": wheel.name,
        "sha256": archive.sha256(wheel),
        "bytes": wheel.stat().st_size,
        "target": target.name,
        "python": python,
        "zig_target": target.zig,
        "files": files,
        "debug": {
            p.relative_to(debug).as_posix(): archive.sha256(p)
            for p in sorted(debug.rglob("*.debug"))
        },
        "compile_commands": command_lines(build, source),
        "link_flags": link_flags(target),
    }
    if target.is_linux:
        made["objcopy"] = run(objcopy(target), "--version").splitlines()[0]
    return made


def write(output: Path, sdist: Path, wheels: list[dict[str, Any]], epoch: int) -> None:
    """Write manifest.json."""
    root = HERE.parent
    pins = (HERE / "requirements.txt").read_text().splitlines()
    tools = [pin.split("==")[0] for pin in pins if pin and not pin.startswith("#")]
    content = {
        "commit": run("git", "rev-parse", "HEAD", cwd=root).strip(),
        "uncommitted_changes": bool(run("git", "status", "--porcelain", cwd=root).strip()),
        "source_date_epoch": epoch,
        "compiler": compiler_version(),
        "tools": {name: version(name) for name in tools},
        "sdist": {"file": sdist.name, "sha256": archive.sha256(sdist)},
        "wheels": wheels,
    }
    (output / "manifest.json").write_text(json.dumps(content, indent=2) + "\n")
