# SPDX-License-Identifier: Apache-2.0
"""Files of torch.save that lie. Each says what it abuses and what the error must name.

``python make_torch_attacks.py FOLDER`` writes them, for a look with other readers; test_torch.py
makes them in a temporary folder.
"""

from __future__ import annotations

import struct
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

from torch_files import (
    BUILD,
    DATA,
    DICT,
    EMPTY,
    END,
    FALSE,
    FIRST_LOCAL,
    GOOD,
    LAST,
    LIST,
    MACHINE,
    MARK,
    NONE,
    PERSID,
    REDUCE,
    SETITEM,
    SETITEMS,
    TUPLE,
    archive,
    dict_of,
    keys,
    legacy,
    name,
    number,
    numbers,
    overlapping,
    patched,
    plain,
    repeated,
    state,
    storage,
    tensor,
    text,
    tuple_of,
    zip64,
)


class Attack(NamedTuple):
    name: str
    why: str
    content: bytes
    mentions: tuple[str, ...]  # beside the name of the file


SYSTEM = name("posix", "system") + tuple_of(text("touch /tmp/owned")) + REDUCE
W = "'w'"

# name, why, content, what the message mentions
PICKLES: list[tuple[str, str, bytes, tuple[str, ...]]] = [
    # Code.
    ("system", "runs a command", state(SYSTEM), ("'posix.system'", W)),
    ("eval", "runs Python", state(name("__builtin__", "eval")), ("'__builtin__.eval'", W)),
    (
        "stack_global",
        "the same in protocol 4",
        state(b"\x8c\x02os\x8c\x06system\x93"),
        ("'os.system'", W),
    ),
    ("getattr", "reaches anything", state(name("builtins", "getattr")), ("'builtins.getattr'",)),
    (
        "attribute",
        "a dotted name below an allowed module",
        state(b"\x8c\x05torch\x8c\x0dserialization\x93"),
        ("'torch.serialization'",),
    ),
    (
        "sparse",
        "another kind of tensor",
        state(name("torch._utils", "_rebuild_sparse_tensor")),
        ("'torch._utils._rebuild_sparse_tensor'", W),
    ),
    (
        "numpy",
        "needs its own reader",
        state(name("numpy.core.multiarray", "_reconstruct")),
        ("'numpy.core.multiarray._reconstruct'",),
    ),
    ("inst", "a class by an old opcode", state(MARK + b"ios\nsystem\n"), ("INST", W)),
    ("obj", "a class from the stack", state(MARK + name("torch", "Size") + b"o"), ("OBJ",)),
    ("ext", "a class by a number", state(b"\x82\x01"), ("EXT1",)),
    ("newobj_ex", "a class with keywords", state(b"\x92"), ("NEWOBJ_EX",)),
    ("persid", "a name for whoever loads", state(b"Pname\n"), ("PERSID",)),
    ("dup", "doubles what is there", state(b"2"), ("DUP",)),
    ("text_long", "a number of any length", state(b"L1L\n"), ("LONG",)),
    ("next_buffer", "data from elsewhere", state(b"\x97"), ("NEXT_BUFFER",)),
    ("no_opcode", "garbage", state(b"\xff"), ("255",)),
    ("protocol", "of the future", b"\x80\x06" + state(NONE)[2:], ("protocol 6",)),
    ("call_text", "what is called is no function", state(text("f") + EMPTY + REDUCE), ("calls",)),
    (
        "call_list",
        "no tuple of arguments",
        state(name("torch", "Size") + LIST + REDUCE),
        ("tuple",),
    ),
    ("build_dict", "attributes of a dict", state(DICT + DICT + BUILD), ("attributes", W)),
    ("name_not_utf8", "no text", state(b"c\xff\n\xff\n"), ("UTF-8", W)),
    ("name_numbers", "no names", state(b"K\x01K\x02\x93"), ("no string",)),
    # The machine.
    ("stack_underflow", "nothing to take", plain(TUPLE), ("mark",)),
    ("stack_below_mark", "takes what is below a mark", plain(NONE + MARK + b"\x85"), ("none is",)),
    ("reduce_alone", "nothing to call", plain(REDUCE), ("none is",)),
    ("leftover", "two values", plain(NONE + NONE), ("nothing takes",)),
    ("open_mark", "a mark that nothing closes", plain(MARK + NONE), ("nothing takes",)),
    ("memo_absent", "a value that was not kept", state(b"h\x63"), ("99",)),
    ("memo_huge", "asks for gigabytes", state(NONE + b"r\xff\xff\xff\xff"), ("4294967295",)),
    ("memo_empty", "keeps nothing", plain(b"q\x00"), ("none is",)),
    ("text_huge", "asks for more than there is", state(b"X\xff\xff\xff\xff"), ("4294967295",)),
    ("text_huge_8", "wraps", state(b"\x8d" + b"\xff" * 8), (str(2**64 - 1),)),
    ("text_not_utf8", "no text", state(text(b"\xed\xa0\x80")), ("UTF-8", W)),
    ("append_dict", "a list's opcode on a dict", state(DICT + NONE + b"a"), ("list",)),
    ("set_list", "a dict's opcode on a list", state(LIST + NONE + NONE + SETITEM), ("dict",)),
    ("odd_items", "a key without a value", plain(DICT + MARK + NONE + SETITEMS), ("key",)),
    ("no_stop", "does not end", state(NONE)[:-1], ("truncated",)),
    ("empty", "no pickle", b"", ("truncated",)),
    ("many_marks", "asks for memory", plain(MARK * (5 << 20)), ("values",)),
    ("many_lists", "asks for memory", plain(LIST * (5 << 20)), ("values",)),
    # State dicts.
    ("none", "no dict", plain(NONE), ("no dict of tensors",)),
    ("list", "no dict", plain(LIST), ("no dict of tensors",)),
    ("one_tensor", "no dict", plain(tensor()), ("no dict of tensors",)),
    ("empty_dict", "no tensors", plain(DICT), ("no dict of tensors",)),
    ("itself", "a list in itself", plain(LIST + b"q\x00h\x00a"), ("no dict of tensors",)),
    (
        "deep",
        "overflows a recursive reader's stack",
        plain(LIST * 10**6 + b"a" * (10**6 - 1)),
        ("no dict of tensors",),
    ),
    ("deep_tuples", "the same", plain(EMPTY + b"\x85" * 10**6), ("no dict of tensors",)),
    ("key_number", "no name", state(tensor(), number(1)), ("no string",)),
    ("key_bytes", "no text", state(tensor(), b"U\x01\xff"), ("no string",)),
    ("key_twice", "which one counts?", state(tensor(), text("first")), ("'first'", "twice")),
    (
        "pairs",
        "an OrderedDict of what are none",
        plain(name("collections", "OrderedDict") + tuple_of(LIST + NONE + b"a") + REDUCE),
        ("pairs",),
    ),
    # Tensors.
    (
        "few_arguments",
        "too few",
        state(name("torch._utils", "_rebuild_tensor_v2") + EMPTY + REDUCE),
        (W, "0 arguments"),
    ),
    ("past_end", "reads behind its storage", state(tensor(numbers(3, 3))), (W, "leaves")),
    ("offset", "reads behind its storage", state(tensor(offset=number(1))), (W, "leaves")),
    ("offset_huge", "wraps", state(tensor(offset=number(2**63 - 1))), (W, "leaves")),
    ("offset_negative", "reads before it", state(tensor(offset=number(-1))), (W, "offset")),
    ("offset_none", "no number", state(tensor(offset=NONE)), (W, "offset")),
    ("stride_huge", "wraps", state(tensor(stride=numbers(2**62, 2**62))), (W, "leaves")),
    (
        "stride_wraps",
        "wraps to 0",
        state(tensor(numbers(3, 1), numbers(2**63 - 1, 1))),
        (W, "leaves"),
    ),
    ("stride_negative", "reads before it", state(tensor(stride=numbers(-3, 1))), (W, "stride")),
    ("stride_missing", "one too few", state(tensor(stride=numbers(1))), (W, "strides")),
    ("size_negative", "less than nothing", state(tensor(numbers(-2, 3))), (W, "size")),
    ("size_long", "past 64 bits", state(tensor(numbers(2**64, 3))), (W, "size")),
    ("size_overflow", "wraps", state(tensor(numbers(2**32, 2**32), numbers(0, 0))), (W, "none")),
    (
        "size_overflow_0",
        "a zero hides it",
        state(tensor(numbers(2**62, 2**62, 0), numbers(0, 0, 0))),
        (W, "none"),
    ),
    ("size_text", "no numbers", state(tensor(text("23"))), (W, "size")),
    ("size_tensor", "no numbers", state(tensor(tensor())), (W, "size")),
    (
        "dims",
        "more than any tensor has",
        state(tensor(numbers(*[1] * 65), numbers(*[1] * 65))),
        (W, "64"),
    ),
    (
        "repeated",
        "asks for a terabyte",
        state(tensor(numbers(2**36, 3), numbers(0, 1))),
        (W, "repeats"),
    ),
    (
        "repeated_often",
        "asks for it in pieces",
        plain(
            dict_of(*(text(f"w{i}") + tensor(numbers(2**19, 3), numbers(0, 1)) for i in range(9)))
        ),
        ("repeats",),
    ),
    (
        "conjugate",
        "elements that are not computed",
        state(tensor(numbers(2, 3), numbers(3, 1), number(0), None, DICT + text("neg") + b"\x88s")),
        (W, "changes its elements"),
    ),
    (
        "wrapped",
        "parameters of parameters",
        state(name("torch._utils", "_rebuild_parameter") * 9 + tensor() + b"\x85R" * 9),
        (W, "made"),
    ),
    (
        "class",
        "an old way to make tensors",
        state(name("torch", "Tensor") + EMPTY + REDUCE),
        (W, "made"),
    ),
    (
        "from_type",
        "a function that makes no tensor",
        state(
            name("torch._tensor", "_rebuild_from_type_v2")
            + tuple_of(name("torch", "device"), name("torch", "Tensor"), EMPTY, NONE)
            + REDUCE
        ),
        (W, "made"),
    ),
    (
        "dtype_missing",
        "no dtype",
        state(
            name("torch._utils", "_rebuild_tensor_v3")
            + tuple_of(storage(), number(0), numbers(6), numbers(1), FALSE, NONE, NONE)
            + REDUCE
        ),
        (W, "dtype"),
    ),
    # Storages.
    ("storage_none", "no storage", state(tensor(where=NONE)), (W, "storage")),
    (
        "storage_module",
        "a class with its source",
        state(tensor(where=tuple_of(text("module")) + PERSID)),
        (W, "storage"),
    ),
    ("storage_type", "no element type", state(tensor(where=storage("0", 6, "Size"))), (W, "type")),
    ("storage_absent", "no such entry", state(tensor(where=storage("9"))), (W, "'9'", "missing")),
    (
        "storage_path",
        "leads out of the archive",
        state(tensor(where=storage("../data.pkl"))),
        (W, "'../data.pkl'", "missing"),
    ),
    (
        "storage_larger",
        "claims more than there is",
        state(tensor(where=storage("0", 7))),
        (W, "24 bytes", "7 elements"),
    ),
    ("storage_huge", "wraps", state(tensor(where=storage("0", 2**62 + 6))), (W, "elements")),
    ("storage_negative", "less than nothing", state(tensor(where=storage("0", -6))), (W, "size")),
    ("storage_long", "past 64 bits", state(tensor(where=storage("0", 2**64 + 6))), (W, "size")),
    (
        "storage_typed_wrong",
        "elements of another size",
        state(tensor(where=storage("0", 6, "DoubleStorage"))),
        (W, "F64"),
    ),
    (
        "storage_part",
        "a part behind the end",
        state(
            tensor(where=storage("0", 6, "FloatStorage", tuple_of(text("v"), number(4), number(6))))
        ),
        (W, "part"),
    ),
    (
        "storage_part_wraps",
        "a part that wraps",
        state(
            tensor(
                where=storage(
                    "0", 6, "FloatStorage", tuple_of(text("v"), number(2), number(2**63 - 1))
                )
            )
        ),
        (W, "part"),
    ),
]

CONTAINERS: list[tuple[str, str, bytes, tuple[str, ...]]] = [
    ("file_empty", "nothing to map", b"", ("empty",)),
    ("file_html", "an error page", b"<html>", ("neither",)),
    (
        "file_lfs",
        "a clone without git-lfs",
        b"version https://git-lfs.github.com/spec/v1\n",
        ("Git LFS",),
    ),
    ("file_safetensors", "the wrong name", struct.pack("<Q", 2) + b"{}", ("neither",)),
    # Zip archives.
    ("zip_only_magic", "nothing else", b"PK\x03\x04", ("directory",)),
    (
        "zip_no_pickle",
        "another archive",
        archive(b"").replace(b"data.pkl", b"data.txt"),
        ("data.pkl",),
    ),
    (
        "zip_deflated",
        "cannot be mapped",
        archive(state(tensor()), DATA, zipfile.ZIP_DEFLATED),
        ("compressed", "'archive/data.pkl'"),
    ),
    ("zip_script", "code", archive(state(tensor()), **{"constants.pkl": b""}), ("TorchScript",)),
    (
        "zip_big_endian",
        "bytes in another order",
        archive(state(tensor()), byteorder=b"big"),
        ("'archive/byteorder'", "little"),
    ),
    ("zip_no_storage", "no data", archive(state(tensor()), None), ("'first'", "missing")),
    (
        "zip_short_storage",
        "too little data",
        archive(state(tensor()), DATA[:-1]),
        ("'first'", "23 bytes"),
    ),
    (
        "zip_other_folder",
        "two archives in one",
        GOOD.replace(b"archive/byteorder", b"another/byteorder"),
        ("'another/byteorder'",),
    ),
    (
        "zip_directory_place",
        "points past the end",
        patched(GOOD, END + 16, b"\xff\xff\xff\x7f"),
        ("directory",),
    ),
    (
        "zip_directory_size",
        "reaches past the end",
        patched(GOOD, END + 12, b"\xff\xff\xff\x7f"),
        ("directory",),
    ),
    (
        "zip_directory_count",
        "more than there is room for",
        patched(GOOD, END + 10, b"\xff\xff"),
        ("65535 entries",),
    ),
    ("zip_directory_broken", "an entry that is none", patched(GOOD, LAST, b"XX"), ("entry 3",)),
    (
        "zip_name_long",
        "a name past the directory",
        patched(GOOD, LAST + 28, b"\xff\xff"),
        ("entry 3",),
    ),
    (
        "zip_name_differs",
        "two readers see two names",
        patched(GOOD, FIRST_LOCAL + 30, b"Archive"),
        ("'archive/data.pkl'", "another name"),
    ),
    (
        "zip_name_not_utf8",
        "no text",
        GOOD.replace(b"archive/data/0", b"archive/data/\xff"),
        ("UTF-8",),
    ),
    ("zip_encrypted", "no data", patched(GOOD, LAST + 8, b"\x01\x00"), ("encrypted",)),
    (
        "zip_sizes_differ",
        "stored in fewer bytes",
        patched(GOOD, LAST + 20, b"\x01\0\0\0"),
        ("'archive/data/0'", "24"),
    ),
    (
        "zip_size_huge",
        "reads past the end",
        patched(GOOD, LAST + 20, b"\xff\xff\xff\x7f" * 2),
        ("'archive/data/0'", "past the end"),
    ),
    (
        "zip_size_into_directory",
        "reads the directory as data",
        patched(GOOD, LAST + 20, struct.pack("<II", 60, 60)),
        ("'archive/data/0'", "directory"),
    ),
    (
        "zip_place_huge",
        "points past the end",
        patched(GOOD, LAST + 42, b"\xff\xff\xff\x7f"),
        ("'archive/data/0'", "header"),
    ),
    (
        "zip_place_wrong",
        "points into data",
        patched(GOOD, LAST + 42, b"\x08\0\0\0"),
        ("'archive/data/0'", "header"),
    ),
    (
        "zip_64_missing",
        "no 64-bit sizes",
        patched(GOOD, LAST + 42, b"\xff\xff\xff\xff"),
        ("'archive/data/0'", "64-bit"),
    ),
    (
        "zip_64_locator",
        "points past the end",
        patched(zip64(), zip64().index(b"PK\x06\x07") + 8, b"\xff" * 8),
        ("64-bit end record",),
    ),
    (
        "zip_64_wraps",
        "sizes that wrap",
        zip64().replace(
            struct.pack("<HHQQ", 1, 24, 24, 24), struct.pack("<HHQQ", 1, 24, 2**64 - 1, 2**64 - 1)
        ),
        ("'archive/data/0'", "past the end"),
    ),
    ("zip_overlap", "the same bytes twice", overlapping(), ("overlaps",)),
    ("zip_twice", "which one counts?", repeated(), ("'archive/data/0'", "twice")),
    # The old format.
    ("old_magic", "another pickle", plain(number(1)), ("not one of torch.save",)),
    ("old_protocol", "another protocol", legacy(state(tensor()), protocol=1002), ("1001",)),
    (
        "old_big_endian",
        "bytes in another order",
        legacy(state(tensor()), machine=MACHINE.replace(b"\x88", b"\x89")),
        ("little-endian",),
    ),
    ("old_system", "runs a command", legacy(state(SYSTEM)), ("'posix.system'", W)),
    (
        "old_no_storages",
        "a download that stopped",
        legacy(state(tensor()), storages=b""),
        ("'0'", "truncated"),
    ),
    (
        "old_no_keys",
        "a storage that is not there",
        legacy(state(tensor()), keys()),
        ("'first'", "missing"),
    ),
    (
        "old_count_huge",
        "wraps",
        legacy(state(tensor()), storages=b"\xff" * 8 + DATA),
        ("'0'", "truncated"),
    ),
    (
        "old_count_wraps",
        "wraps to 24",
        legacy(state(tensor()), storages=struct.pack("<Q", 2**62 + 6) + DATA),
        ("'0'", "truncated"),
    ),
    (
        "old_count_smaller",
        "less than the pickle says",
        legacy(state(tensor()), storages=struct.pack("<q", 5) + DATA),
        ("'first'", "20 bytes"),
    ),
    (
        "old_key_twice",
        "which one counts?",
        legacy(state(tensor()), keys("0", "0"), (struct.pack("<q", 6) + DATA) * 2),
        ("'0'", "twice"),
    ),
    (
        "old_key_unknown",
        "how many bytes?",
        legacy(state(tensor()), keys("0", "1")),
        ("'1'", "no tensor"),
    ),
]


ATTACKS = [
    *(Attack(name, why, archive(pickle), mentions) for name, why, pickle, mentions in PICKLES),
    *(Attack(f"legacy_{name}", why, legacy(pickle), ()) for name, why, pickle, _ in PICKLES),
    *(Attack(*row) for row in CONTAINERS),
]


if __name__ == "__main__":
    for each in ATTACKS:
        path = Path(sys.argv[1]) / f"{each.name}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(each.content)
        print(f"{path}: {each.why}")
