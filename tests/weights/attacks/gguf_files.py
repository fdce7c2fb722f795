# SPDX-License-Identifier: Apache-2.0
"""GGUF files by hand, honest or not: every number in them can be set."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
_FORMATS = dict(zip(range(13), "BbHhIif?..QqD", strict=True)) | {F64: "d"}

# ggml's numbers of types that are read, with elements and bytes of a block.
TYPES = {
    "F32": (0, 1, 4),
    "F16": (1, 1, 2),
    "Q4_0": (2, 32, 18),
    "Q4_1": (3, 32, 20),
    "Q5_0": (6, 32, 22),
    "Q5_1": (7, 32, 24),
    "Q8_0": (8, 32, 34),
    "Q4_K": (12, 256, 144),
    "Q5_K": (13, 256, 176),
    "Q6_K": (14, 256, 210),
    "BF16": (30, 1, 2),
}


def text(value: str | bytes, length: int | None = None) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw) if length is None else length) + raw


def array(kind: int, items: bytes, count: int) -> bytes:
    return struct.pack("<IQ", kind, count) + items


def key(name: str | bytes, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def u32(name: str, value: int) -> bytes:
    return key(name, U32, struct.pack("<I", value))


def encoded(name: str, value: Any) -> bytes:
    """A key with a Python value: str, bool, int, float or a list of one of these."""
    kind, raw = _value(value)
    return key(name, kind, raw)


def _value(value: Any) -> tuple[int, bytes]:
    if isinstance(value, list):
        items = [_value(item) for item in value]
        kind = items[0][0] if items else U32
        return ARRAY, array(kind, b"".join(raw for _, raw in items), len(items))
    if isinstance(value, str | bytes):
        return STRING, text(value)
    kind = {bool: BOOL, int: U32, float: F32}[type(value)]
    if kind == U32 and value < 0:
        kind = I32
    return kind, struct.pack("<" + _FORMATS[kind], value)


class Tensor(NamedTuple):
    name: str | bytes
    dims: tuple[int, ...]  # as the file has them: innermost first
    kind: int
    offset: int
    count: int | None = None  # of dimensions, if it lies

    def info(self) -> bytes:
        count = len(self.dims) if self.count is None else self.count
        dims = struct.pack(f"<{len(self.dims)}Q", *self.dims)
        return text(self.name) + struct.pack("<I", count) + dims + self.rest()

    def rest(self) -> bytes:
        return struct.pack("<IQ", self.kind, self.offset)


def gguf(
    keys: list[bytes],
    tensors: list[Tensor] | None = None,
    data: bytes = b"",
    *,
    alignment: int = 32,
    counts: tuple[int | None, int | None] = (None, None),
    version: bytes = struct.pack("<I", 3),
) -> bytes:
    """A file; `counts` are those of tensors and keys, if they lie."""
    tensors = tensors or []
    count = len(tensors) if counts[0] is None else counts[0]
    out = b"GGUF" + version + struct.pack("<Q", count)
    out += struct.pack("<Q", len(keys) if counts[1] is None else counts[1])
    out += b"".join(keys) + b"".join(tensor.info() for tensor in tensors)
    return out + bytes(-len(out) % alignment) + data


def file_of(keys: dict[str, Any], tensors: dict[str, tuple[str, tuple[int, ...], bytes]]) -> bytes:
    """An honest file; each tensor is a type, a shape (outermost first) and its bytes."""
    infos, data = [], b""
    for name, (kind, shape, raw) in tensors.items():
        infos.append(Tensor(name, tuple(reversed(shape)), TYPES[kind][0], len(data)))
        data += raw + bytes(-len(raw) % 32)
    return gguf([encoded(name, value) for name, value in keys.items()], infos, data)


# A tiny Llama.
KEYS: dict[str, Any] = {
    "general.architecture": "llama",
    "llama.block_count": 1,
    "llama.context_length": 64,
    "llama.embedding_length": 16,
    "llama.feed_forward_length": 24,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
}
TABLE = ("F32", (6, 16), bytes(6 * 16 * 4))


def write(
    folder: Path,
    changes: dict[str, Any] | None = None,
    tensors: dict[str, Any] | None = None,
) -> Path:
    """A file of KEYS with changes (None takes one out) and an embedding table."""
    keys = {k: v for k, v in (KEYS | (changes or {})).items() if v is not None}
    path = folder / "m.gguf"
    path.write_bytes(file_of(keys, {"token_embd.weight": TABLE} | (tensors or {})))
    return path


def write_blocks(folder: Path) -> Path:
    """A Llama of one layer in blocks of 4 and more bits; its head is the table."""
    rng = np.random.default_rng(3)

    def blocks(kind: str, rows: int, columns: int) -> tuple[str, tuple[int, int], bytes]:
        # Scale and, where the type has one, minimum; then bits, which are as good as random.
        heads = {"Q4_0": (0.02,), "Q4_1": (0.02, -0.15), "Q5_1": (0.01, -0.15), "Q8_0": (0.001,)}
        head = np.array(heads[kind], np.float16).tobytes()
        bits = TYPES[kind][2] - len(head)
        raw = b"".join(head + rng.bytes(bits) for _ in range(rows * columns // 32))
        return kind, (rows, columns), raw

    def norm() -> tuple[str, tuple[int], bytes]:
        return "F32", (64,), rng.standard_normal(64, np.float32).tobytes()

    tensors = {
        "token_embd.weight": blocks("Q8_0", 40, 64),
        "output_norm.weight": norm(),
        "blk.0.attn_norm.weight": norm(),
        "blk.0.attn_q.weight": blocks("Q4_0", 64, 64),
        "blk.0.attn_k.weight": blocks("Q4_1", 32, 64),
        "blk.0.attn_v.weight": blocks("Q5_1", 32, 64),
        "blk.0.attn_output.weight": blocks("Q4_0", 64, 64),
        "blk.0.ffn_norm.weight": norm(),
        "blk.0.ffn_gate.weight": blocks("Q4_1", 96, 64),
        "blk.0.ffn_up.weight": blocks("Q4_0", 96, 64),
        "blk.0.ffn_down.weight": blocks("Q8_0", 64, 96),
    }
    sizes = {"llama.embedding_length": 64, "llama.feed_forward_length": 96}
    return write(folder, sizes, tensors)
