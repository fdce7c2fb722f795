# SPDX-License-Identifier: Apache-2.0
"""The folder that trine keeps files in, shared by all processes of a user."""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator

_POLL = 0.02  # seconds


def cache_folder() -> Path:
    """Return ``$TRINE_CACHE``, or ``trine`` in the platform's cache folder; it need not exist."""
    if named := os.environ.get("TRINE_CACHE"):
        return Path(named).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "trine"
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return (Path(local) if local else Path.home() / "AppData" / "Local") / "trine"
    xdg = os.environ.get("XDG_CACHE_HOME")
    return (Path(xdg) if xdg else Path.home() / ".cache") / "trine"


@contextmanager
def file_lock(path: Path, *, patience: float = float("inf")) -> Iterator[None]:
    """Hold a lock among processes and threads; it ends with the process at the latest.

    Whoever holds it may remove the file.

    Raises
    ------
    TimeoutError
        Somebody else has held it for `patience` seconds.
    OSError
        The file cannot be written, or locked.
    """
    deadline = time.monotonic() + patience
    while True:
        with path.open("a+b") as file:
            while not _locked(file):
                if time.monotonic() >= deadline:
                    raise TimeoutError(f"{path}: another process holds it")
                time.sleep(_POLL)
            if _is_at(file, path):  # not removed while we waited
                yield
                return


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _locked(file: BinaryIO) -> bool:
    """Lock if nobody else has."""
    if sys.platform == "win32":
        import msvcrt

        try:
            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
    else:
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
