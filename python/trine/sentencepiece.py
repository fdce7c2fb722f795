# SPDX-License-Identifier: Apache-2.0
"""Read a SentencePiece model (``spm.model``): a protobuf message, read here without protobuf.

Nothing in the file is believed: every length is checked against what is there, and what the
`tokenizers` library would take for granted (unique pieces, finite scores, a table of normalisation
that never points outside itself) is checked before that library sees it.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from trine._core import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# The largest published ones are 5 MB; keeps a wrong file from filling the memory.
_SIZE_LIMIT = 64 << 20

# Kinds of pieces, sentencepiece_model.proto's SentencePiece.Type.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)

_MODEL_TYPES = {1: "unigram", 2: "BPE", 3: "word", 4: "char"}

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FLOAT = struct.Struct("<f")

# Field number to (what it is, its wire type).
_TRAINER = {
    3: ("model_type", _VARINT),
    24: ("treat_whitespace_as_suffix", _VARINT),
    35: ("byte_fallback", _VARINT),
    40: ("unk_id", _VARINT),
}
_NORMALIZER = {
    2: ("precompiled_charsmap", _BYTES),
    3: ("add_dummy_prefix", _VARINT),
    4: ("remove_extra_whitespaces", _VARINT),
    5: ("escape_whitespaces", _VARINT),
}


@dataclass
class SentencePiece:
    """What a tokenizer needs of a SentencePiece model; defaults are the format's own."""

    pieces: list[tuple[str, float]] = field(default_factory=list)  # with their scores, by id
    kinds: dict[int, int] = field(default_factory=dict)  # of the ids that are not NORMAL
    model_type: int = 1
    unk_id: int = 0
    byte_fallback: int = 0
    treat_whitespace_as_suffix: int = 0
    precompiled_charsmap: bytes = b""
    add_dummy_prefix: int = 1
    remove_extra_whitespaces: int = 1
    escape_whitespaces: int = 1

    def added(self) -> list[tuple[str, bool]]:
        """Return the pieces that text is split at, and whether each is a control piece."""
        kinds = sorted(self.kinds.items())
        wanted = [(i, kind) for i, kind in kinds if kind in (CONTROL, USER_DEFINED)]
        return [(self.pieces[i][0], kind == CONTROL) for i, kind in wanted]


class _DamageError(ValueError):
    """What is wrong with the bytes; the file's name is added by `read`."""


def read(path: Path, kind: str = "unigram") -> SentencePiece:
    """Read a model of this kind: "unigram" or "BPE".

    Raises
    ------
    ModelError
        Missing, too large, not such a file, or one that contradicts itself: names the file, and
        the byte or the piece.
    """
    try:
        size = path.stat().st_size
        if size > _SIZE_LIMIT:
            raise ModelError(
                f"{path}: {size} bytes, a SentencePiece model has at most {_SIZE_LIMIT}"
            )
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}") from error
    try:
        model = _parse(data)
        _check(model, kind)
    except _DamageError as error:
        raise ModelError(f"{path}: not a SentencePiece model that can be read: {error}") from None
    return model


def check_charsmap(path: Path, charsmap: bytes) -> None:
    """Check that no text makes the `tokenizers` library look outside the normalisation table.

    The table is a double array over the bytes of what is replaced, then the replacements, each
    ended by a zero byte. The library trusts it, so every step that it holds is checked.

    Raises
    ------
    ModelError
        One leads out of the table, or a replacement isn't text.
    """
    where = f"{path}: normalizer_spec.precompiled_charsmap"
    size = int.from_bytes(charsmap[:4], "little")
    if len(charsmap) < 4 or size % 1024 or not 1024 <= size <= len(charsmap) - 4:
        raise ModelError(f"{where}: a table of {size} bytes, {len(charsmap)} are there")
    units = np.frombuffer(charsmap, "<u4", size // 4, offset=4).astype(np.int64)
    texts = charsmap[4 + size :]
    try:
        texts.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ModelError(f"{where}: the replacements are not UTF-8: {error}") from None
    steps = (units >> 10) << ((units & 512) >> 6)
    label = units & 0x800000FF
    # A unit is entered by the byte that it is labelled with; the first one without any byte.
    entered = np.flatnonzero((label > 0) & (label < 256) | (np.arange(len(units)) == 0))
    states = entered ^ steps[entered]
    if (states >= len(units)).any():  # whole blocks of 256: any byte stays inside as well
        raise ModelError(f"{where}: a step leads out of the table")
    values = units[states[units[entered] >> 8 & 1 == 1]] & 0x7FFFFFFF
    first = np.frombuffer(texts, np.uint8)
    if (values >= len(texts)).any() or (first[values] >> 6 == 2).any():
        raise ModelError(f"{where}: a replacement lies outside the texts")


def _check(model: SentencePiece, kind: str) -> None:
    name = _MODEL_TYPES.get(model.model_type, str(model.model_type))
    if name != kind:
        raise _DamageError(f"trainer_spec.model_type is {name}, expected {kind}")
    count = len(model.pieces)
    if not count:
        raise _DamageError("it has no pieces")
    names = {piece for piece, _ in model.pieces}
    if len(names) != count or "" in names:
        seen: set[str] = set()
        for index, (piece, _) in enumerate(model.pieces):
            if not piece or piece in seen:
                raise _DamageError(f"piece {index}, {piece!r}, is empty or there twice")
            seen.add(piece)
    bad = next((i for i, (_, score) in enumerate(model.pieces) if not math.isfinite(score)), None)
    if bad is not None:
        raise _DamageError(f"piece {bad} has the score {model.pieces[bad][1]}")
    if not 0 <= model.unk_id < count:
        raise _DamageError(f"trainer_spec.unk_id is {model.unk_id}, there are {count} pieces")


# Protobuf --------------------------------------------------------------------------------------


def _parse(data: bytes) -> SentencePiece:
    model = SentencePiece()
    start = _read_usual_pieces(model, data)
    for number, wire, value in _fields(data, start, len(data)):
        if number == 1:
            _read_piece(model, data, _span(value, wire, "pieces"))
        elif number in (2, 3):
            name = "trainer_spec" if number == 2 else "normalizer_spec"
            _read_settings(model, data, _span(value, wire, name), number)
    return model


def _read_usual_pieces(model: SentencePiece, data: bytes) -> int:
    """Read the pieces in front as every writer lays them out; returns where another one begins.

    They are nearly the whole file, 250000 of them in the largest: this is four times as fast.
    """
    at, end, pieces = 0, len(data), model.pieces
    while at + 11 < end and data[at] == 10 and data[at + 2] == 10:
        size, length = data[at + 1], data[at + 3]
        score = at + 4 + length
        typed = size == length + 9
        if size > 127 or not (typed or size == length + 7) or at + 2 + size > end:
            break
        if data[score] != 21 or (typed and (data[score + 5] != 24 or not 0 < data[score + 6] < 7)):
            break
        try:
            text = data[at + 4 : score].decode("utf-8")
        except UnicodeDecodeError:
            break  # met again by the code that says what is wrong
        if typed and data[score + 6] != NORMAL:
            model.kinds[len(pieces)] = data[score + 6]
        pieces.append((text, _FLOAT.unpack_from(data, score + 1)[0]))
        at += 2 + size
    return at


def _read_piece(model: SentencePiece, data: bytes, span: tuple[int, int]) -> None:
    index = len(model.pieces)
    text, score, kind = b"", 0.0, NORMAL
    for number, wire, value in _fields(data, *span):
        if number == 1:
            start, end = _span(value, wire, f"piece {index}")
            text = data[start:end]
        elif number == 2:
            if wire != _FIXED32 or isinstance(value, int):
                raise _DamageError(f"piece {index} has a score that is no number")
            (score,) = _FLOAT.unpack_from(data, value[0])
        elif number == 3:
            kind = value if isinstance(value, int) and wire == _VARINT else 0
    if not NORMAL <= kind <= BYTE:
        raise _DamageError(f"piece {index} is of an unknown type")
    if kind != NORMAL:
        model.kinds[index] = kind
    try:
        model.pieces.append((text.decode("utf-8"), score))
    except UnicodeDecodeError as error:
        raise _DamageError(f"piece {index} is not UTF-8: {error}") from None


def _read_settings(model: SentencePiece, data: bytes, span: tuple[int, int], spec: int) -> None:
    known = _TRAINER if spec == 2 else _NORMALIZER
    for number, wire, value in _fields(data, *span):
        if number not in known:
            continue
        name, expected = known[number]
        if wire != expected:
            raise _DamageError(f"{name} has the wire type {wire}, expected {expected}")
        if isinstance(value, int):  # int32: negative numbers are stored as 64 bits
            low = value & 0xFFFFFFFF
            setattr(model, name, low - (1 << 32) if low >> 31 else low)
        else:
            setattr(model, name, data[slice(*value)])


def _span(value: int | tuple[int, int], wire: int, name: str) -> tuple[int, int]:
    if wire != _BYTES or isinstance(value, int):
        raise _DamageError(f"{name} has the wire type {wire}, expected {_BYTES}")
    return value


def _fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int | tuple[int, int]]]:
    """Yield a message's fields: number, wire type, and a varint's value or where the rest lies."""
    while at < end:
        start = at
        key, at = _varint(data, at, end)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(data, at, end)
            yield number, wire, value
            continue
        if wire == _BYTES:
            size, at = _varint(data, at, end)
        elif wire in (_FIXED32, _FIXED64):
            size = 4 if wire == _FIXED32 else 8
        else:
            raise _DamageError(f"byte {start} has the wire type {wire}")
        if number == 0 or size > end - at:
            raise _DamageError(f"field {number} at byte {start} has {size} bytes, {end - at} left")
        yield number, wire, (at, at + size)
        at += size


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    if at < end and data[at] < 0x80:  # nearly always
        return data[at], at + 1
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise _DamageError(f"it ends within a number, at byte {at}")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
    raise _DamageError(f"a number of more than 10 bytes at byte {at - 10}")
