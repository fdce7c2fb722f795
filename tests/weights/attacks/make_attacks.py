# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that lie. Each says what it abuses and what the error must name.

``python make_attacks.py FOLDER`` writes them, for a look with other readers; test_attacks.py makes
them in a temporary folder. An attack is one safetensors file, or an index with its shards.
"""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator


class Attack(NamedTuple):
    name: str
    why: str
    files: dict[str, bytes]  # the first one is opened
    mentions: tuple[str, ...]  # beside the name of a file


def safetensors(
    header: bytes | str | dict[str, Any], data: bytes = b"", length: int | None = None
) -> bytes:
    if isinstance(header, dict):
        header = json.dumps(header)
    if isinstance(header, str):
        header = header.encode()
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def tensor(dtype: Any, shape: Any, *offsets: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": list(offsets)}


def one(dtype: Any, shape: Any, *offsets: Any, data: bytes = bytes(8)) -> bytes:
    return safetensors({"wte.weight": tensor(dtype, shape, *offsets)}, data)


GOOD = safetensors(
    {"a": tensor("F32", [2], 0, 8), "b": tensor("U8", [3], 8, 11), "c": tensor("F16", [], 11, 13)},
    bytes(range(13)),
)
W = "'wte.weight'"

# name, why, content, what the message mentions
FILES: list[tuple[str, str, bytes, tuple[str, ...]]] = [
    # The header's length is the first number that an attacker controls.
    ("empty", "nothing to map", b"", ("empty",)),
    ("short", "not even a length", b"\x02\0\0", ("3 bytes",)),
    ("length_only", "a length and no header", struct.pack("<Q", 2), ("header of 2 bytes",)),
    ("length_2_63", "negative as a signed integer", safetensors("{}", length=2**63), (str(2**63),)),
    (
        "length_2_64_minus_1",
        "wraps when 8 is added",
        safetensors("{}", length=2**64 - 1),
        (str(2**64 - 1),),
    ),
    (
        "length_2_64_minus_8",
        "wraps to 0 when 8 is added",
        safetensors("{}", length=2**64 - 8),
        ("limit",),
    ),
    (
        "length_over_limit",
        "asks for a gigabyte of JSON",
        safetensors("{}", length=10**9),
        ("limit",),
    ),
    ("length_past_end", "reads past the file", safetensors("{}", length=3), ("truncated",)),
    ("length_zero", "no JSON at all", safetensors(""), ("does not start with '{'",)),
    ("length_too_small", "the JSON is cut", safetensors('{"a":{}}', length=4), ("found the end",)),
    ("truncated_data", "a download that stopped", GOOD[:-1], ("'c'", "truncated")),
    ("truncated_header", "a download that stopped early", GOOD[:40], ("truncated",)),
    (
        "lfs_pointer",
        "a clone without git-lfs",
        b"version https://git-lfs.github.com/spec/v1\n",
        ("Git LFS",),
    ),
    (
        "zip",
        "a torch checkpoint with the wrong name",
        b"PK\x03\x04" + bytes(60),
        ("not a safetensors file",),
    ),
    # The header as JSON.
    (
        "leading_space",
        "the format wants '{' first",
        safetensors(" {}"),
        ("does not start with '{'",),
    ),
    ("array", "not an object", safetensors("[]"), ("does not start with '{'",)),
    ("trailing_text", "a second document", safetensors("{}{}"), ("text after the end",)),
    ("trailing_nul", "only spaces may fill up", safetensors(b"{}\0\0"), ("text after the end",)),
    ("comment", "JSON with extras", safetensors("{/**/}"), ("key",)),
    (
        "deep_arrays",
        "overflows a recursive parser's stack",
        safetensors('{"a":' + "[" * 10**6),
        ("expected an object",),
    ),
    (
        "deep_ignored",
        "the same inside a field that is passed over",
        safetensors('{"wte.weight":{"x":' + "[" * 10**6),
        ("nested deeper", W),
    ),
    (
        "not_utf8_name",
        "no text, and no Python string",
        safetensors(b'{"w\xff":{}}'),
        ("invalid UTF-8",),
    ),
    (
        "overlong_utf8_name",
        "'/' written in two bytes",
        safetensors(b'{"\xc0\xaf":{}}'),
        ("invalid UTF-8",),
    ),
    ("surrogate_name", "half a character", safetensors('{"\\ud800":{}}'), ("surrogate",)),
    (
        "control_in_name",
        "a raw newline forges log lines",
        safetensors('{"a\nb":{}}'),
        ("control character",),
    ),
    (
        "huge_name",
        "the message must not repeat a megabyte",
        safetensors({"n" * 10**6: tensor("F99", [], 0, 0)}),
        ("unknown dtype", "(1000000 bytes)"),
    ),
    # Names.
    (
        "duplicate_tensor",
        "two readers may see different weights",
        safetensors(
            '{"wte.weight":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},'
            '"wte.weight":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}}',
            bytes(8),
        ),
        (W, "comes twice"),
    ),
    (
        "duplicate_escaped",
        "the same name, spelt with an escape",
        safetensors(
            '{"wte.weight":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},'
            '"wte\\u002eweight":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}}',
            bytes(8),
        ),
        (W, "comes twice"),
    ),
    (
        "duplicate_field",
        "the checked shape and the used one differ",
        safetensors(
            '{"wte.weight":{"dtype":"U8","shape":[8],"shape":[80],"data_offsets":[0,8]}}', bytes(8)
        ),
        (W, "shape comes twice"),
    ),
    # Fields of a tensor.
    (
        "no_dtype",
        "a field is missing",
        safetensors({"wte.weight": {"shape": [8], "data_offsets": [0, 8]}}),
        (W, "no dtype"),
    ),
    (
        "no_shape",
        "a field is missing",
        safetensors({"wte.weight": {"dtype": "U8", "data_offsets": [0, 8]}}),
        (W, "no shape"),
    ),
    (
        "no_offsets",
        "a field is missing",
        safetensors({"wte.weight": {"dtype": "U8", "shape": [8]}}),
        (W, "no data_offsets"),
    ),
    (
        "tensor_is_number",
        "not an object",
        safetensors({"wte.weight": 1}),
        (W, "expected an object"),
    ),
    ("unknown_dtype", "size unknown", one("F99", [8], 0, 8), (W, "'F99'")),
    ("lower_case_dtype", "names are exact", one("f32", [2], 0, 8), (W, "'f32'")),
    ("number_dtype", "wrong type", one(3, [2], 0, 8), (W, "dtype")),
    ("negative_shape", "a huge size once unsigned", one("F32", [-2], 0, 8), (W, "shape")),
    ("two_negative_dimensions", "their product is right", one("F32", [-1, -2], 0, 8), (W, "shape")),
    ("float_shape", "wrong type", one("F32", [2.0], 0, 8), (W, "shape")),
    ("exponent_shape", "looks integral", safetensors('{"wte.weight":{"shape":[2e0]'), (W, "shape")),
    ("string_shape", "wrong type", one("F32", "2", 0, 8), (W, "shape")),
    ("dimension_2_63", "negative once signed", one("U8", [2**63], 0, 8), (W, str(2**63))),
    ("dimension_2_64", "wraps to 0", one("U8", [2**64], 0, 0, data=b""), (W, "shape")),
    # Sizes.
    (
        "shape_overflow",
        "2^32 x 2^32 wraps to 0",
        one("U8", [2**32, 2**32], 0, 0, data=b""),
        (W, "whole number of bytes"),
    ),
    (
        "bytes_overflow",
        "2^62 + 2 floats wrap to 8 bytes",
        one("F32", [2**62 + 2], 0, 8),
        (W, "whole number of bytes"),
    ),
    (
        "hidden_overflow",
        "a 0 at the end hides the overflow",
        one("U8", [2**32, 2**32, 0], 0, 0, data=b""),
        (W, "whole"),
    ),
    (
        "half_byte",
        "three 4-bit elements",
        one("F4", [3], 0, 2, data=b"12"),
        (W, "whole number of bytes"),
    ),
    ("wrong_dtype_size", "reads twice as far", one("F64", [2], 0, 8), (W, "needs 16 bytes")),
    ("shape_too_large", "reads past its data", one("F32", [3], 0, 8), (W, "needs 12 bytes")),
    ("shape_too_small", "leaves data unused", one("F32", [1], 0, 8), (W, "needs 4 bytes")),
    ("empty_with_data", "no element, eight bytes", one("F32", [0], 0, 8), (W, "needs 0 bytes")),
    # Offsets.
    ("offsets_reversed", "a negative length", one("F32", [2], 8, 0), (W, "end before they begin")),
    (
        "offsets_negative",
        "reads the header as weights",
        one("F32", [2], -8, 0),
        (W, "data_offsets"),
    ),
    ("offsets_past_end", "reads past the file", one("F32", [4], 0, 16), (W, "truncated")),
    ("offsets_2_64", "begin + end wrap", one("U8", [8], 2**64 - 8, 2**64), (W, "data_offsets")),
    ("offsets_near_2_64", "begin + data start wraps", one("U8", [7], 2**64 - 8, 2**64 - 1), (W,)),
    ("offsets_one", "wrong count", one("U8", [8], 0), (W, "two numbers")),
    ("offsets_three", "wrong count", one("U8", [8], 0, 8, 8), (W, "two numbers")),
    ("offsets_strings", "wrong type", one("U8", [8], "0", "8"), (W, "data_offsets")),
    # Layout: what no tensor covers can hide anything, what two cover multiplies memory.
    (
        "overlap",
        "the same bytes twice: a small file fills memory",
        safetensors(
            {"a": tensor("U8", [6], 0, 6), "wte.weight": tensor("U8", [6], 2, 8)}, bytes(8)
        ),
        (W, "overlaps that of 'a'"),
    ),
    (
        "same_bytes",
        "the same bytes twice, exactly",
        safetensors({"a": tensor("U8", [8], 0, 8), "b": tensor("U8", [8], 0, 8)}, bytes(8)),
        ("'b'", "overlaps that of 'a'"),
    ),
    (
        "empty_inside",
        "an empty tensor in the middle of another",
        safetensors(
            {"a": tensor("U8", [8], 0, 8), "wte.weight": tensor("U8", [0], 4, 4)}, bytes(8)
        ),
        (W, "overlaps that of 'a'"),
    ),
    (
        "hole",
        "room for another file (a polyglot)",
        safetensors(
            {"a": tensor("U8", [2], 0, 2), "wte.weight": tensor("U8", [4], 4, 8)}, bytes(8)
        ),
        (W, "a hole of 2 bytes"),
    ),
    (
        "hole_at_start",
        "room before the first tensor",
        one("U8", [4], 4, 8),
        (W, "a hole of 4 bytes"),
    ),
    ("trailing_bytes", "room after the last tensor", one("U8", [4], 0, 4), (W, "4 bytes after")),
    (
        "trailing_bytes_alone",
        "data and no tensor",
        safetensors({}, b"PK\x03\x04"),
        ("4 bytes after",),
    ),
    # __metadata__ holds strings only.
    (
        "metadata_number",
        "wrong type",
        safetensors({"__metadata__": {"format": 1}}),
        ("'__metadata__'.'format'",),
    ),
    (
        "metadata_nested",
        "wrong type",
        safetensors({"__metadata__": {"a": {"b": "c"}}}),
        ("'__metadata__'.'a'",),
    ),
    ("metadata_list", "wrong type", safetensors({"__metadata__": ["a"]}), ("'__metadata__'",)),
    ("metadata_null", "wrong type", safetensors({"__metadata__": None}), ("'__metadata__'",)),
    (
        "metadata_twice",
        "two readers see different ones",
        safetensors('{"__metadata__":{},"__metadata__":{}}'),
        ("twice",),
    ),
    (
        "metadata_key_twice",
        "the same",
        safetensors('{"__metadata__":{"a":"1","a":"2"}}'),
        ("'a'", "twice"),
    ),
]

INDEX = "model.safetensors.index.json"
A = safetensors({"a": tensor("U8", [1], 0, 1), "b": tensor("U8", [1], 1, 2)}, b"ab")
B = safetensors({"c": tensor("U8", [1], 0, 1)}, b"c")
B_WITH_A = safetensors({"a": tensor("U8", [1], 0, 1), "c": tensor("U8", [1], 1, 2)}, b"ac")
GOOD_MAP = {"a": "A.safetensors", "b": "A.safetensors", "c": "B.safetensors"}

# name, why, weight_map, shard B, what the message mentions
INDICES: list[tuple[str, str, Any, bytes | None, tuple[str, ...]]] = [
    (
        "missing_shard",
        "a download that stopped",
        GOOD_MAP,
        None,
        ("'B.safetensors'", "'c'", "missing"),
    ),
    (
        "absent_tensor",
        "an index of another version",
        {**GOOD_MAP, "d": "B.safetensors"},
        B,
        ("'d'", "'B.safetensors'"),
    ),
    (
        "wrong_shard",
        "the tensor is elsewhere",
        {**GOOD_MAP, "a": "B.safetensors"},
        B,
        ("'a'", "but in"),
    ),
    ("tensor_in_two_shards", "which one counts?", GOOD_MAP, B_WITH_A, ("'a'", "also in")),
    (
        "broken_shard",
        "the error names the shard",
        GOOD_MAP,
        B[:-1],
        ("B.safetensors", "'c'", "truncated"),
    ),
    (
        "parent_folder",
        "leads out of the folder",
        {"a": "../A.safetensors"},
        B,
        ("'../A.safetensors'",),
    ),
    ("absolute_path", "leads out of the folder", {"a": "/etc/passwd"}, B, ("'/etc/passwd'",)),
    ("windows_path", "leads out of the folder on Windows", {"a": "C:\\A.safetensors"}, B, ("C:",)),
    (
        "sub_folder",
        "shards lie beside their index",
        {"a": "x/../A.safetensors"},
        B,
        ("'x/../A.safetensors'",),
    ),
    ("dot_dot", "a folder", {"a": ".."}, B, ("'..'",)),
    ("nul", "the system sees a shorter name", {"a": "A.safetensors\0.txt"}, B, ("\\x00",)),
    ("number", "wrong type", {"a": 1}, B, ("'weight_map'.'a'",)),
    ("list", "wrong type", ["a"], B, ("'weight_map'",)),
]


def all_attacks() -> Iterator[Attack]:
    for name, why, content, mentions in FILES:
        yield Attack(name, why, {f"{name}.safetensors": content}, mentions)
    for name, why, weight_map, shard, mentions in INDICES:
        index = json.dumps({"metadata": {"total_size": 3}, "weight_map": weight_map})
        files = {INDEX: index.encode(), "A.safetensors": A}
        if shard is not None:
            files["B.safetensors"] = shard
        yield Attack(f"index_{name}", why, files, mentions)
    twice = b'{"weight_map":{"a":"A.safetensors","a":"B.safetensors"}}'
    yield Attack("index_key_twice", "which one counts?", {INDEX: twice}, ("'a'", "twice"))
    yield Attack("index_no_map", "another JSON file", {INDEX: b"{}"}, ("weight_map",))
    yield Attack("index_not_json", "another file", {INDEX: b"<html>"}, ("expected an object",))


ATTACKS = list(all_attacks())


def write(attack: Attack, folder: Path) -> Path:
    """Write the attack's files; the one to open is returned."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in attack.files.items():
        (folder / name).write_bytes(content)
    return folder / next(iter(attack.files))


if __name__ == "__main__":
    for each in ATTACKS:
        print(f"{write(each, Path(sys.argv[1]) / each.name)}: {each.why}")
