# SPDX-License-Identifier: Apache-2.0
"""The load cache: compiled files of what was loaded before, in one folder of limited size.

docs/load-cache.md says what is promised. An entry is ``KEY.trine`` with ``KEY.json`` beside it, the
record: what the file is, and by its time when it was used last. The record is written last and
removed first, so a file without one counts for nothing. Who writes or removes an entry holds
``KEY.lock``; who maps one needs no lock.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trine import _core
from trine._core import Error, InputError
from trine.cache import cache_folder, file_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trine.sources import Source
    from trine.tasks.base import Task

SIZE_VARIABLE = "TRINE_CACHE_SIZE"
DEFAULT_LIMIT = 10 * 10**9
# What a disk must still have free when an entry is written.
RESERVE = 2 * 10**9
# Below this many bytes of weights a folder is loaded as fast as its compiled file.
SMALLEST = 8 << 20
PATIENCE = 60.0  # seconds to wait for another process that compiles the same

# Files up to this size are read whole to tell them apart, at some 2 GB/s.
_WHOLE = 16 << 20
# Of larger ones this many pieces, spread evenly, and what the file system says about them.
_PIECES, _PIECE = 16, 4096
# Changes that follow each other faster may leave a file's times as they are (FAT: 2 s).
_YOUNG = 2 * 10**9  # ns
# The small files of a model's folder: those of the tokenizer, configurations, chat templates.
_SMALL_SUFFIXES = {".json", ".txt", ".model", ".jinja"}
_MOST_SMALL_FILES = 256

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


class _NotNowError(Exception):
    """Why a source cannot be told from what it was or will be."""


def size_limit() -> int:
    """Return how many bytes the cache may take: ``$TRINE_CACHE_SIZE``, such as 500MB; 0 is off.

    Raises
    ------
    InputError
        It is no size.
    """
    text = os.environ.get(SIZE_VARIABLE, "").strip().upper().removesuffix("B")
    if not text:
        return DEFAULT_LIMIT
    unit = text[-1] + "B" if text[-1] in "KMGT" else ""
    try:
        size = float(text.rstrip("KMGT")) * _UNITS[unit]
        return int(size) if size >= 0 else int("negative")
    except (ValueError, OverflowError) as error:
        raise InputError(
            f"{SIZE_VARIABLE} is {os.environ[SIZE_VARIABLE]!r}, expected a size such as 500MB or "
            "20GB; 0 turns the load cache off"
        ) from error


def load(
    found: Source,
    options: dict[str, Any],
    build: Callable[[], Task],
    mapped: Callable[[Path], Task],
) -> Task:
    """Map a source's compiled file; without one, build the model and write it.

    Whatever the cache cannot do, the model is built, and ``info()["cache"]`` says why.

    Parameters
    ----------
    found, options
        What is loaded, and how: whatever results depend on.
    build : callable
        Loads it without the cache.
    mapped : callable
        Loads a compiled file of it.
    """
    lock = ExitStack()
    try:
        limit = size_limit()
        entry = Entry(folder(), key_of(found, options)) if limit else None
        task = None if entry is None else entry.map(mapped)
        if entry is not None and task is None:
            lock.enter_context(entry.held())
    except (_NotNowError, OSError, Error) as error:
        return _noted(build(), f"not used: {_reason(error)}")
    if entry is None or task is not None:
        return task or build()
    with lock:  # another process may have been faster
        return entry.map(mapped) or _fill(
            entry, limit, build, mapped, lambda: key_of(found, options)
        )


def _fill(
    entry: Entry,
    limit: int,
    build: Callable[[], Task],
    mapped: Callable[[Path], Task],
    key_now: Callable[[], str],
) -> Task:
    """Build the model and write the entry; the lock is held."""
    task = build()
    try:
        entry.write(task, limit, key_now)
    except (_NotNowError, OSError, Error) as error:
        return _noted(task, f"not used: {_reason(error)}")
    kept = entry.map(mapped)
    if kept is None:
        return _noted(task, f"not used: {entry.file} cannot be mapped")
    task.close()
    return _noted(kept, f"written to {entry.file}")


def folder() -> Path:
    """Return the folder of the cache; it need not exist."""
    return cache_folder() / "loads"


def key_of(found: Source, options: dict[str, Any]) -> str:
    """Return a name for what is loaded, and how: another one for whatever gives another result."""
    weights = [path.resolve() for path in found.weights_files()]
    if sum(path.stat().st_size for path in weights) < SMALLEST:
        raise _NotNowError(f"weights of less than {SMALLEST >> 20} MiB load as fast without")
    small = [
        path
        for place in found.folders()
        if place.is_dir()  # a module without settings need not have one
        for path in sorted(place.iterdir())
        if path.suffix in _SMALL_SUFFIXES and path.is_file()
    ]
    if len(small) > _MOST_SMALL_FILES:
        raise _NotNowError(f"{found.root} has more than {_MOST_SMALL_FILES} small files")
    parts = {
        **options,
        "kind": type(found).__name__,
        "main": found.weights_files()[0].name,
        "trine": [_core.__version__, _package()],
        "fused": _core.isa() != "scalar",  # folded tables are rounded otherwise without
        "small": [[os.path.relpath(path, found.root), _identity(path)] for path in small],
        "weights": [_identity(path) for path in weights],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:40]


def _identity(path: Path) -> list[Any]:
    """Return what changes whenever a file's content does.

    A larger file's inode and times are part of it. Its time of change (ctime) cannot be set: who
    rewrites a file and restores its mtime changes that, unless within the resolution of the clock,
    so that files that are that young have no identity yet.
    """
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        if status.st_size <= _WHOLE:
            return [hashlib.sha256(file.read()).hexdigest()]
        if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) < _YOUNG:
            raise _NotNowError(f"{path} was written a moment ago")
        digest = hashlib.sha256()
        for piece in range(_PIECES):
            file.seek((status.st_size - _PIECE) * piece // (_PIECES - 1))
            digest.update(file.read(_PIECE))
    return [*_stamp(status), digest.hexdigest()]


def _stamp(status: os.stat_result) -> list[int]:
    return [status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns]


def _package() -> str:
    """Return what changes with the package's own files: versions are not raised between commits."""
    place = Path(__file__).parent
    parts = [
        [path.name, path.stat().st_size, path.stat().st_mtime_ns]
        for pattern in ("*.py", "_core*", "models/*.py", "tasks/*.py")
        for path in sorted(place.glob(pattern))
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@dataclass(frozen=True)
class Entry:
    """A compiled file of the cache, which need not be there."""

    folder: Path
    key: str

    @property
    def file(self) -> Path:
        """The compiled file."""
        return self.folder / f"{self.key}.trine"

    @property
    def record(self) -> Path:
        """What says that the file is whole."""
        return self.folder / f"{self.key}.json"

    @property
    def lock(self) -> Path:
        """What writers hold."""
        return self.folder / f"{self.key}.lock"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Lock it for writing; OSError without a folder that can be written, or not in time."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with file_lock(self.lock, patience=PATIENCE):
            yield

    def map(self, mapped: Callable[[Path], Task]) -> Task | None:
        """Load the compiled file; None without a sound one."""
        try:
            if self.read()["file"] != _stamp(self.file.stat()):
                return None  # somebody has written to it
            task = mapped(self.file)
        except (OSError, ValueError, KeyError, Error):
            return None
        with suppress(OSError):
            os.utime(self.record)
        return _noted(task, f"mapped {self.file}")

    def read(self) -> dict[str, Any]:
        """Return the record; OSError, ValueError or KeyError without a sound one."""
        record = json.loads(self.record.read_bytes())
        if not isinstance(record, dict):
            raise ValueError("not an object")  # noqa: TRY004
        return record

    def write(self, task: Task, limit: int, key_now: Callable[[], str]) -> None:
        """Write the compiled file and make room for it; the lock is held."""
        info = task.info()
        self._check_size(int(info["weight_bytes"]), limit)
        self._check_room(int(info["weight_bytes"]))
        self.remove_files()
        try:
            task.save(self.file)
            self._check_size(_size(self.file), limit)
            self._check_key(key_now())
            record = {
                "file": _stamp(self.file.stat()),
                **{name: info[name] for name in ("source", "architecture", "task", "dtype")},
            }
            part = self.record.with_suffix(".json.tmp")
            part.write_text(json.dumps(record), "utf-8")
            part.replace(self.record)
        except BaseException:
            self.remove_files()
            raise
        evict(self.folder, limit, keep=self.key)

    def _check_size(self, size: int, limit: int) -> None:
        if size > limit:
            raise _NotNowError(f"{size} bytes are more than {SIZE_VARIABLE}, {limit}")

    def _check_room(self, size: int) -> None:
        free = shutil.disk_usage(self.folder).free
        if free - size < RESERVE:
            raise _NotNowError(f"{free} bytes are free on the disk of {self.folder}")

    def _check_key(self, key: str) -> None:
        if key != self.key:
            raise _NotNowError("the files changed while they were loaded")

    def bytes(self) -> int:
        """Return how much of the disk it takes."""
        return sum(_size(path) for path in self.files())

    def files(self) -> list[Path]:
        """Return all of its files but the lock, the record first."""
        left = sorted(self.folder.glob(f"{self.key}.*.tmp"))  # of a writer that was killed
        return [self.record, self.file, *left]

    def used(self) -> float:
        """Return when it was used last, in seconds; 0 if it is no whole entry."""
        try:
            return self.record.stat().st_mtime if self.file.exists() else 0
        except OSError:
            return 0

    def remove_files(self) -> None:
        """Remove what there is, the record first; the lock is held. Mappings stay."""
        for path in self.files():
            with suppress(OSError):
                path.unlink()

    def remove(self) -> bool:
        """Remove all of it, unless somebody is writing it or may not remove it."""
        try:
            with file_lock(self.lock, patience=0):
                self.remove_files()
                if sys.platform != "win32":
                    self.lock.unlink()
        except OSError:
            return False
        return not self.file.exists()


def entries(place: Path) -> Iterator[Entry]:
    """Yield what lies in the cache, damaged entries and left-overs included, least used first."""
    try:
        keys = {path.name.partition(".")[0] for path in place.iterdir()}
    except FileNotFoundError:
        return
    yield from sorted((Entry(place, key) for key in keys), key=Entry.used)


def evict(place: Path, limit: int, *, keep: str = "") -> None:
    """Remove entries that were not used for longest, until the rest fits the limit."""
    found = list(entries(place))
    total = sum(entry.bytes() for entry in found)
    for entry in found:
        size = entry.bytes()
        if entry.key == keep:
            continue
        if (total > limit or not entry.used()) and entry.remove():
            total -= size


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _noted(task: Task, note: str) -> Task:
    task._checkpoint = replace(task._checkpoint, cache=note)  # noqa: SLF001
    return task


def _reason(error: Exception) -> str:
    strerror = getattr(error, "strerror", None)
    return f"{getattr(error, 'filename', None) or folder()}: {strerror}" if strerror else str(error)
