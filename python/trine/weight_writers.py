# SPDX-License-Identifier: Apache-2.0
"""Write weights: safetensors files, and files that torch.load reads. Neither library is needed."""

from __future__ import annotations

import json
import struct
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trine._core import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

# safetensors' dtypes in the library's order, which is that of the tensors in a file, backwards;
# and what torch calls their storages, and their bytes.
_DTYPES = {
    "BOOL": ("BoolStorage", 1),
    "U8": ("ByteStorage", 1),
    "I8": ("CharStorage", 1),
    "I16": ("ShortStorage", 2),
    "F16": ("HalfStorage", 2),
    "BF16": ("BFloat16Storage", 2),
    "I32": ("IntStorage", 4),
    "F32": ("FloatStorage", 4),
    "F64": ("DoubleStorage", 8),
    "I64": ("LongStorage", 8),
}
_ORDER = {name: place for place, name in enumerate(_DTYPES)}

# From here on a zip entry says its size in 64 bits.
_ZIP64 = 1 << 31
_TIME = (1980, 1, 1, 0, 0, 0)  # the same tensors make the same file


@dataclass(frozen=True)
class Stored:
    """A tensor to write.

    Attributes
    ----------
    name, dtype : str
        The dtype by its name in safetensors.
    shape : tuple of int
    read : function
        Returns the bytes, row-major; called when they are written.
    like : str or None
        A tensor that comes before and has the same bytes: they are stored once (torch files only).
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    read: Callable[[], bytes]
    like: str | None = None

    @property
    def count(self) -> int:
        """Elements."""
        count = 1
        for size in self.shape:
            count *= size
        return count

    @property
    def size(self) -> int:
        """Bytes."""
        return self.count * _DTYPES[self.dtype][1]


def write_safetensors(path: Path, tensors: Sequence[Stored]) -> None:
    """Write what the `safetensors` library writes, to the byte.

    Raises
    ------
    ModelError
        A dtype that cannot be written.
    """
    _check(path, tensors)
    ordered = sorted(tensors, key=lambda t: (-_ORDER[t.dtype], t.name.encode()))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for t in ordered:
        offsets = [at, at + t.size]
        header[t.name] = {"dtype": t.dtype, "shape": list(t.shape), "data_offsets": offsets}
        at += t.size
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)))
        file.write(text)
        for t in ordered:
            file.write(t.read())


def write_torch(path: Path, tensors: Sequence[Stored]) -> None:
    """Write a file of torch.save: a zip archive with a pickle of the dict, and the storages.

    Storages begin at multiples of 64 bytes, as torch's own do, so that they can be mapped.

    Raises
    ------
    ModelError
        A dtype that cannot be written.
    """
    _check(path, tensors)
    folder = path.stem
    keys: dict[str, str] = {}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        storages: list[Stored] = []
        for t in tensors:
            keys[t.name] = str(len(storages)) if t.like is None else keys[t.like]
            if t.like is None:
                storages.append(t)
        _add(archive, f"{folder}/data.pkl", _pickle(tensors, keys))
        _add(archive, f"{folder}/byteorder", b"little")
        for t in storages:
            _add(archive, f"{folder}/data/{keys[t.name]}", t.read())
        _add(archive, f"{folder}/version", b"3\n")


def _check(path: Path, tensors: Sequence[Stored]) -> None:
    for t in tensors:
        if t.dtype not in _DTYPES:
            known = ", ".join(_DTYPES)
            raise ModelError(f"{path}: tensor {t.name!r} is {t.dtype}; {known} can be written")


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    """Add an entry whose data begin at a multiple of 64 bytes."""
    entry = zipfile.ZipInfo(name, _TIME)
    large = len(data) >= _ZIP64
    start = archive.start_dir + 30 + len(name.encode()) + (20 if large else 0) + 4
    padding = -start % 64
    entry.extra = struct.pack("<2sH", b"FB", padding) + b"Z" * padding
    with archive.open(entry, "w", force_zip64=large) as file:
        file.write(data)


# The pickle, protocol 2: torch.load(weights_only=True) and other readers that call nothing know
# these names alone.

_ORDERED_DICT = b"ccollections\nOrderedDict\n)R"


def _text(text: str) -> bytes:
    data = text.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _int(value: int) -> bytes:
    if 0 <= value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    return b"\x8a\x08" + struct.pack("<q", value)


def _tuple(values: Sequence[int]) -> bytes:
    return b"(" + b"".join(_int(v) for v in values) + b"t"


def _pickle(tensors: Sequence[Stored], keys: dict[str, str]) -> bytes:
    parts = [b"\x80\x02", _ORDERED_DICT, b"("]
    for t in tensors:
        strides, step = [], 1
        for size in reversed(t.shape):
            strides.append(step)
            step *= size
        kind = _DTYPES[t.dtype][0].encode()
        storage = [_text("storage"), b"ctorch\n" + kind + b"\n", _text(keys[t.name]), _text("cpu")]
        parts += [_text(t.name), b"ctorch._utils\n_rebuild_tensor_v2\n", b"((", *storage]
        parts += [_int(t.count), b"tQ", _int(0), _tuple(t.shape), _tuple(strides[::-1])]
        parts += [b"\x89", _ORDERED_DICT, b"tR"]  # no gradient, no hooks
    return b"".join([*parts, b"u."])
