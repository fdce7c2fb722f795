# SPDX-License-Identifier: Apache-2.0
"""Join slices of a zip file and unpack it whole, checked, in one step for everybody else."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tempfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from trine._core import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

_JUNK = "desktop.ini"
_SIZE_LIMIT = 1 << 30  # the demo is 439 MB unpacked
_CHUNK = 1 << 20


def unpack(parts: Sequence[Path], target: Path, *, name: str, sha256: str) -> None:
    """Unpack beside the target, check, and rename: nobody ever sees half a model.

    Parameters
    ----------
    parts : sequence of Path
        The slices, in order.
    target : Path
        The folder to make; its parent must exist.
    name : str
        The one folder that the archive holds.
    sha256 : str
        Of its model.safetensors.

    Raises
    ------
    ModelError
        A damaged archive, other weights, or a file that would lie outside the folder.
    """
    for left in target.parent.glob(f".{target.name}-*"):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        with (
            io.BufferedReader(JoinedFiles(parts), _CHUNK) as joined,
            zipfile.ZipFile(joined) as archive,
        ):
            members = [m for m in archive.infolist() if not m.is_dir()]
            if sum(m.file_size for m in members) > _SIZE_LIMIT:
                raise ModelError(f"{parts[0]}: unpacks to more than {_SIZE_LIMIT} bytes")
            for member in members:
                _extract(archive, member, work, name=name, sha256=sha256)
        (work / name).replace(target)
    except (zipfile.BadZipFile, EOFError, ValueError) as error:
        raise ModelError(f"{parts[0].parent}: the archive is damaged: {error}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _extract(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, work: Path, *, name: str, sha256: str
) -> None:
    inside = PurePosixPath(member.filename)
    if inside.name == _JUNK:
        return
    stays = not inside.is_absolute() and ".." not in inside.parts and "\\" not in member.filename
    if not stays or inside.parts[0] != name:
        raise ModelError(f"the archive has a file outside its folder: {member.filename!r}")
    path = work.joinpath(*inside.parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with archive.open(member) as source, path.open("wb") as out:
        while block := source.read(_CHUNK):
            digest.update(block)
            out.write(block)
        out.flush()
        os.fsync(out.fileno())  # or a power cut after the rename could leave holes
    if inside.name == "model.safetensors" and digest.hexdigest() != sha256:
        raise ModelError(f"{member.filename}: sha256 is {digest.hexdigest()}, expected {sha256}")


class JoinedFiles(io.RawIOBase):
    """Several files, read as one."""

    def __init__(self, paths: Sequence[Path]) -> None:
        super().__init__()
        self._files = [path.open("rb") for path in paths]
        self._sizes = [path.stat().st_size for path in paths]
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position in the whole."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move in the whole."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: sum(self._sizes)}[whence]
        if base + offset < 0:
            raise ValueError(f"seek to {base + offset}")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read from the file at the position, up to its end at most."""
        start = self._position
        for file, size in zip(self._files, self._sizes, strict=True):
            if start < size:
                file.seek(start)
                count = file.readinto(memoryview(buffer)[: size - start])
                self._position += count
                return count
            start -= size
        return 0

    def close(self) -> None:
        """Close all files."""
        for file in self._files:
            file.close()
        super().close()
