# SPDX-License-Identifier: Apache-2.0
"""Wheels as archives: unpacked, and packed so that the same files give the same bytes."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import time
import zipfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def sha256(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def unpack(wheel: Path, folder: Path) -> Path:
    """Unpack a wheel; returns the folder."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def record_digest(data: bytes) -> str:
    """Return a hash as RECORD spells it."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=")
    return "sha256=" + digest.decode()


def pack(folder: Path, wheel: Path, epoch: int, *, level: int = 9) -> None:
    """Write a folder as a wheel: RECORD made anew, names in order, one time for all files."""
    info = next(folder.glob("*.dist-info"))
    record = info / "RECORD"
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p != record)
    files.sort(key=lambda p: info in p.parents)  # metadata last, as the standard advises
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    for path in files:
        data = path.read_bytes()
        rows.writerow([path.relative_to(folder).as_posix(), record_digest(data), len(data)])
    rows.writerow([record.relative_to(folder).as_posix(), "", ""])
    record.write_text(table.getvalue())
    stamp = time.gmtime(max(epoch, 315532800))[:6]  # zip knows no year before 1980
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED, compresslevel=level) as archive:
        for path in [*files, record]:
            entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), stamp)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3
            mode = 0o755 if path.suffix in (".so", ".dylib") else 0o644
            entry.external_attr = (0o100000 | mode) << 16
            archive.writestr(entry, path.read_bytes())
