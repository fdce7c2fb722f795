# SPDX-License-Identifier: Apache-2.0
"""Packages of any Debian for any architecture, in folders of their own."""

from __future__ import annotations

import shutil
from hashlib import sha256
from typing import TYPE_CHECKING

from compile import run

if TYPE_CHECKING:
    from pathlib import Path

KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"


def find_site() -> str:
    """Return the archive that this machine's apt takes Debian from."""
    listed = run("apt-get", "indextargets", "--format", "$(CODENAME) $(SITE)", "Origin: Debian")
    site = next((x.split()[1] for x in listed.splitlines() if "-" not in x.split()[0]), None)
    if site is None:
        raise SystemExit("apt-get knows no Debian to take a Python from")
    return site


def update(folder: Path, release: str, architecture: str) -> list[str]:
    """Fetch a release's signed lists into a new folder; returns the apt-get that goes by them.

    The system is not touched.
    """
    shutil.rmtree(folder, ignore_errors=True)
    for part in ("lists/partial", "cache/archives/partial", "root"):
        (folder / part).mkdir(parents=True)
    (folder / "status").touch()
    sources = folder / "sources.list"
    sources.write_text(f"deb [signed-by={KEYS}] {find_site()} {release} main\n")
    settings = {
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Sandbox::User": "root",
        "Dir::State": folder,
        "Dir::State::status": folder / "status",
        "Dir::State::lists": folder / "lists",
        "Dir::Cache": folder / "cache",
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "/dev/null",
        "Debug::NoLocking": "1",
    }
    apt = ["apt-get", "-qq", "-y", *(f"-o{key}={value}" for key, value in settings.items())]
    run(*apt, "update")
    return apt


def unpack(folder: Path, release: str, version: str, packages: dict[str, str]) -> Path:
    """Unpack exactly these packages for amd64, given with their SHA-256, without what they need."""
    apt = update(folder, release, "amd64")
    for name, digest in packages.items():
        run(*apt, "download", f"{name}={version}", cwd=folder)
        (package,) = folder.glob(f"{name}_*.deb")
        found = sha256(package.read_bytes()).hexdigest()
        if found != digest:
            raise SystemExit(f"{package.name}: SHA-256 {found}, not {digest}")
        run("dpkg-deb", "-x", package, folder / "root")
        package.unlink()
    return folder / "root"
