# SPDX-License-Identifier: Apache-2.0
"""GGUF files that lie. Each says what it abuses and what the error must name.

``python make_gguf_attacks.py FOLDER`` writes them, for a look with other readers; test_gguf.py
makes them in a temporary folder.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import NamedTuple

from gguf_files import (
    ARRAY,
    BOOL,
    F64,
    I16,
    STRING,
    U8,
    U64,
    Tensor,
    array,
    encoded,
    gguf,
    key,
    text,
    u32,
)


class Attack(NamedTuple):
    name: str
    why: str
    content: bytes
    mentions: tuple[str, ...]  # beside the name of the file


GOOD = gguf(
    [
        encoded("general.architecture", "llama"),
        u32("general.alignment", 32),
        encoded("words", ["one", "two", ""]),
        key("nested", ARRAY, array(ARRAY, array(I16, bytes(4), 2) + array(BOOL, b"\1", 1), 2)),
        key("half", F64, struct.pack("<d", 0.5)),
    ],
    [
        Tensor("w", (2, 3), 0, 0),
        Tensor("q", (32, 2), 8, 32),
        Tensor("scalar", (), 0, 128),
    ],
    bytes(range(132)),
)
_PAD = bytes(64)
_MAX = 2**64 - 1


def _key(raw: bytes) -> bytes:
    return gguf([raw, encoded("after", "x" * 40)])


def _tensors(*tensors: Tensor) -> bytes:
    return gguf([], list(tensors), bytes(128))


def _w(dims: tuple[int, ...], kind: int = 0, offset: int = 0, count: int | None = None) -> bytes:
    return _tensors(Tensor("w", dims, kind, offset, count))


def _deep(depth: int) -> bytes:
    return array(ARRAY, b"", 1) * (depth - 1) + array(U8, b"\0", 1)


K, W = "key 'k'", "tensor 'w'"

# name, why, content, what the message mentions
FILES: list[tuple[str, str, bytes, tuple[str, ...]]] = [
    # The header.
    ("empty", "nothing to map", b"", ("empty",)),
    ("short", "not even a magic", b"GG", ("not a GGUF file",)),
    ("magic_alone", "no counts", b"GGUF", ("4 bytes",)),
    ("safetensors", "another format", struct.pack("<Q", 2) + b"{}" + _PAD, ("not a GGUF file",)),
    ("ggjt", "the format before", b"tjgg" + _PAD, ("not a GGUF file",)),
    (
        "lfs_pointer",
        "a clone without git-lfs",
        b"version https://git-lfs.github.com/spec/v1\n",
        ("Git LFS",),
    ),
    ("version_1", "32-bit counts", gguf([], version=b"\1\0\0\0"), ("version 1",)),
    ("version_4", "of the future", gguf([], version=b"\4\0\0\0"), ("version 4",)),
    ("version_0", "of no time", gguf([], version=bytes(4)), ("version 0",)),
    ("big_endian", "the other byte order", gguf([], version=b"\0\0\0\3"), ("big-endian",)),
    ("keys_max", "a huge vector", gguf([], counts=(0, _MAX)), (f"{_MAX} keys",)),
    ("tensors_max", "a huge vector", gguf([], counts=(_MAX, 0)), (f"{_MAX} tensors",)),
    (
        "keys_wrap",
        "times the size of a key it wraps to little",
        gguf([encoded("k", "v" * 100)], counts=(0, 2**64 // 13 + 1)),
        ("keys in a file of",),
    ),
    (
        "keys_one_more",
        "a key past the end",
        gguf([u32("k", 1)], counts=(0, 2), alignment=1),
        ("keys",),
    ),
    # Keys and values.
    ("name_length", "a huge string", _key(text(b"", _MAX)), ("key 0 of 2", str(_MAX))),
    ("name_length_2_63", "a negative one", _key(text(b"", 2**63)), ("key 0 of 2",)),
    ("name_not_utf8", "no text", _key(key(b"\xff\xfe", U8, b"\0")), ("UTF-8",)),
    ("name_long", "a megabyte of name", _key(key("k" * 10**6, U8, b"\0")), ("1000000 bytes",)),
    ("string_length", "a huge string", _key(key("k", STRING, text(b"", 2**60))), (K, str(2**60))),
    (
        "string_past_end",
        "by one",
        gguf([key("k", STRING, text(b"a" * 32, 33))], alignment=1),
        (K, "33"),
    ),
    ("type_13", "no such type", _key(key("k", 13, _PAD)), (K, "unknown type 13")),
    ("type_max", "no such type", _key(key("k", 2**32 - 1, _PAD)), (K, "unknown type")),
    ("bool_2", "neither", _key(key("k", BOOL, b"\2")), (K, "2 is neither")),
    ("bool_in_array", "neither", _key(key("k", ARRAY, array(BOOL, b"\1\3", 2))), ("item 1", K)),
    ("array_huge", "a huge list", _key(key("k", ARRAY, array(U64, b"", 2**61))), (K, str(2**61))),
    ("array_wraps", "wraps to 8 bytes", _key(key("k", ARRAY, array(F64, b"", 2**61 + 1))), (K,)),
    ("array_strings", "each could be empty", _key(key("k", ARRAY, array(STRING, b"", _MAX))), (K,)),
    ("array_arrays", "each could be empty", _key(key("k", ARRAY, array(ARRAY, b"", _MAX))), (K,)),
    ("array_type", "no such type", _key(key("k", ARRAY, array(77, b"", 0))), (K, "type 77")),
    (
        "array_string_length",
        "the second one is huge",
        _key(key("k", ARRAY, array(STRING, text("a") + text(b"", 2**40), 2))),
        ("item 1", K),
    ),
    ("array_depth_9", "a deep stack", _key(key("k", ARRAY, _deep(9))), (K, "deeper than 8")),
    ("array_depth_10000", "a deeper one", _key(key("k", ARRAY, _deep(10000))), (K, "deeper")),
    ("key_twice", "which one holds?", gguf([u32("k", 1), u32("k", 1)]), (K, "twice")),
    # The alignment.
    *(
        (f"alignment_{n}", "no power of two", gguf([u32("general.alignment", n)]), (str(n),))
        for n in (0, 3, 48, 2**32 - 1)
    ),
    (
        "alignment_huge",
        "the data begin past the end",
        gguf([u32("general.alignment", 2**31)], [Tensor("w", (1,), 0, 0)], bytes(64)),
        (W, "0 bytes of data"),
    ),
    (
        "alignment_u64",
        "of another type",
        gguf([key("general.alignment", U64, struct.pack("<Q", 32))]),
        ("general.alignment",),
    ),
    (
        "alignment_string",
        "of another type",
        gguf([encoded("general.alignment", "32")]),
        ("general.alignment",),
    ),
    # Tensors.
    ("dims_5", "more than there are", _w((1, 1, 1, 1, 1)), (W, "5 dimensions")),
    ("dims_max", "a huge loop", _w((), count=2**32 - 1), (W, "4294967295 dimensions")),
    ("dim_2_63", "negative as a signed integer", _w((2**63,)), (W, str(2**63))),
    ("elements_wrap", "the product wraps to 0", _w((2**32, 2**32)), (W, "4294967296")),
    ("elements_zero", "and a dimension of 0 hides it", _w((0, 2**32, 2**32)), (W,)),
    ("bytes_wrap", "times 4 wraps", _w((2**62 + 1,)), (W,)),
    ("blocks_wrap", "times 210 wraps", _w((2**62,), 14), (W,)),
    ("type_4", "was one once", _w((32,), 4), (W, "unknown type 4")),
    ("type_31", "was one once", _w((32,), 31), (W, "unknown type 31")),
    ("type_huge", "never was", _w((32,), 2**31), (W, "unknown type")),
    ("half_block", "no whole block", _w((48,), 2), (W, "Q4_0")),
    ("block_of_rows", "blocks across rows", _w((16, 2), 8), (W, "Q8_0")),
    ("scalar_block", "a block of one", _w((), 12), (W, "Q4_K")),
    ("offset_unaligned", "between two tensors", _w((1,), 0, 4), (W, "offset 4")),
    ("offset_end", "at the end", _w((1,), 0, 128), (W, "offset 128")),
    ("offset_max", "plus the size it wraps", _w((16,), 0, _MAX - 31), (W, "offset")),
    ("size_past_end", "by one element", _w((33,)), (W, "132 bytes")),
    (
        "overlap",
        "two names for one byte",
        _tensors(Tensor("v", (16,), 0, 0), Tensor("w", (1,), 0, 32)),
        (W, "overlaps", "'v'"),
    ),
    (
        "overlap_unordered",
        "in the other order",
        _tensors(Tensor("w", (1,), 0, 32), Tensor("v", (16,), 0, 0)),
        (W, "overlaps", "'v'"),
    ),
    (
        "overlap_same",
        "tied by offset",
        _tensors(Tensor("v", (1,), 0, 0), Tensor("w", (1,), 0, 0)),
        ("overlaps",),
    ),
    (
        "tensor_twice",
        "which one holds?",
        _tensors(Tensor("w", (1,), 0, 0), Tensor("w", (1,), 0, 32)),
        (W, "twice"),
    ),
    ("tensor_name", "a huge string", gguf([], counts=(1, 0)) + text(b"", _MAX) + _PAD, ("tensor",)),
    ("tensor_not_utf8", "no text", _tensors(Tensor(b"\xc0\x80", (1,), 0, 0)), ("UTF-8",)),
    (
        "tensor_control",
        "a name for terminals",
        _tensors(Tensor("\x1b[2J", (2**63,), 0, 0)),
        ("[2J",),
    ),
    ("truncated", "a download that stopped", GOOD[:-1], ("'scalar'", "truncated")),
]

ATTACKS = [Attack(*row) for row in FILES]


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for attack in ATTACKS:
        (folder / f"{attack.name}.gguf").write_bytes(attack.content)
        print(f"{attack.name}: {attack.why}")


if __name__ == "__main__":
    main()
