# SPDX-License-Identifier: Apache-2.0
"""Files of torch.save, put together opcode by opcode and record by record."""

from __future__ import annotations

import io
import struct
import zipfile

# Pickles, opcode by opcode ----------------------------------------------------------------------

MARK, STOP, TUPLE, REDUCE, NONE, EMPTY, DICT = b"(", b".", b"t", b"R", b"N", b")", b"}"
SETITEM, SETITEMS, PERSID, LIST, APPENDS, BUILD = b"s", b"u", b"Q", b"]", b"e", b"b"
FALSE = b"\x89"


def text(value: str | bytes) -> bytes:
    raw = value if isinstance(value, bytes) else value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value: int) -> bytes:
    raw = value.to_bytes(9, "little", signed=True) if abs(value) >= 2**63 else None
    raw = raw or value.to_bytes(8, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def name(module: str, what: str) -> bytes:
    return f"c{module}\n{what}\n".encode()


def tuple_of(*parts: bytes) -> bytes:
    return MARK + b"".join(parts) + TUPLE


def numbers(*values: int) -> bytes:
    return tuple_of(*map(number, values))


def storage(key: str = "0", count: int = 6, kind: str = "FloatStorage", *more: bytes) -> bytes:
    parts = (text("storage"), name("torch", kind), text(key), text("cpu"), number(count))
    return tuple_of(*parts, *more) + PERSID


def tensor(
    size: bytes = numbers(2, 3),
    stride: bytes = numbers(3, 1),
    offset: bytes = number(0),
    where: bytes | None = None,
    *more: bytes,
) -> bytes:
    hooks = name("collections", "OrderedDict") + EMPTY + REDUCE
    parts = (storage() if where is None else where, offset, size, stride, FALSE, hooks, *more)
    return name("torch._utils", "_rebuild_tensor_v2") + tuple_of(*parts) + REDUCE


def dict_of(*pairs: bytes) -> bytes:
    return DICT + MARK + b"".join(pairs) + SETITEMS


def state(value: bytes, key: bytes = text("w")) -> bytes:
    return b"\x80\x02" + dict_of(text("first"), tensor(), key, value) + STOP


# Containers -------------------------------------------------------------------------------------

DATA = struct.pack("<6f", *range(6))


def archive(
    pickle: bytes, data: bytes | None = DATA, method: int = zipfile.ZIP_STORED, **entries: bytes
) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as file:
        file.writestr("archive/data.pkl", pickle)
        for entry, content in {"version": b"3\n", "byteorder": b"little", **entries}.items():
            file.writestr(f"archive/{entry}", content)
        if data is not None:
            file.writestr("archive/data/0", data)
    return out.getvalue()


MAGIC = 0x1950A86A20F9469CFC6C


def plain(value: bytes) -> bytes:
    return b"\x80\x02" + value + STOP


MAGIC_PICKLE = plain(b"\x8a\x0a" + MAGIC.to_bytes(10, "little"))
MACHINE = plain(dict_of(text("protocol_version"), number(1001), text("little_endian"), b"\x88"))


def keys(*names: str) -> bytes:
    return plain(LIST + MARK + b"".join(map(text, names)) + APPENDS)


def legacy(
    pickle: bytes,
    listed: bytes = keys("0"),
    storages: bytes = struct.pack("<q", 6) + DATA,
    protocol: int = 1001,
    machine: bytes = MACHINE,
) -> bytes:
    # Its storages also say of what they are a part: of nothing.
    pickle = pickle.replace(number(6) + TUPLE + PERSID, number(6) + NONE + TUPLE + PERSID)
    return MAGIC_PICKLE + plain(number(protocol)) + machine + pickle + listed + storages


GOOD = archive(state(tensor()))
GOOD_LEGACY = legacy(state(tensor()))


def patched(content: bytes, at: int, value: bytes) -> bytes:
    return content[:at] + value + content[at + len(value) :]


def directory_of(content: bytes) -> tuple[int, int]:
    """Where the central directory and the end record of an archive without comment are."""
    end = len(content) - 22
    return struct.unpack_from("<I", content, end + 16)[0], end


CENTRAL, END = directory_of(GOOD)
LAST = GOOD.rindex(b"PK\x01\x02")  # of archive/data/0
FIRST_LOCAL = GOOD.index(b"PK\x03\x04")

# Files that any reader should take, for which torch has no switch: what Python 2 wrote, parts of
# storages, a pickle without marks, 64-bit zip records, a comment behind the archive.
SHORT = b"U\x01w"  # a str of Python 2


def zip64() -> bytes:
    content = bytearray(GOOD)
    place = struct.pack("<Q", struct.unpack_from("<I", content, LAST + 42)[0])
    extra = struct.pack("<HHQQ", 1, 24, len(DATA), len(DATA)) + place
    content[LAST + 20 : LAST + 28] = b"\xff" * 8
    content[LAST + 42 : LAST + 46] = b"\xff" * 4
    content[LAST + 30 : LAST + 32] = struct.pack("<H", len(extra))
    content[END:END] = extra  # behind the name, which ends the directory
    end, count, size = END + len(extra), 4, END + len(extra) - CENTRAL
    record = struct.pack("<IQHHIIQQQQ", 0x06064B50, 44, 45, 45, 0, 0, count, count, size, CENTRAL)
    locator = struct.pack("<IIQI", 0x07064B50, 0, end, 1)
    return bytes(content[:end]) + record + locator + bytes(content[end:])


TAKEN: dict[str, bytes] = {
    "zip64": zip64(),
    "comment": GOOD[:-2] + struct.pack("<H", 4) + b"note",
    "single": archive(b"\x80\x02" + DICT + text("w") + tensor() + SETITEM + STOP),
    "python2": legacy(
        plain(
            name("collections", "OrderedDict")
            + tuple_of(LIST + MARK + LIST + MARK + SHORT + tensor() + APPENDS + APPENDS)
            + REDUCE
        )
    ),
    "part": legacy(
        state(
            tensor(
                numbers(2),
                numbers(1),
                number(0),
                storage("0", 6, "FloatStorage", tuple_of(text("view"), number(2), number(3))),
            )
        )
    ),
    "size": archive(state(tensor(name("torch", "Size") + tuple_of(numbers(2, 3)) + REDUCE))),
}


def overlapping() -> bytes:
    """Two entries over the same bytes: the first one is as long as both."""
    size = GOOD.rindex(b"PK\x03\x04") - GOOD.index(state(tensor()))
    return patched(GOOD, GOOD.index(b"PK\x01\x02") + 20, struct.pack("<II", size, size))


def repeated() -> bytes:
    """Two entries of one name."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("archive/data.pkl", state(tensor()))
        for entry in ("0", "1"):
            file.writestr(f"archive/data/{entry}", DATA)
    return out.getvalue().replace(b"archive/data/1", b"archive/data/0")
