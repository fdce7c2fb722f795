# SPDX-License-Identifier: Apache-2.0
"""Abusive checkpoints end in a ModelError that names the file and the tensor; good ones agree with
the reference reader."""

from __future__ import annotations

import json
import runpy
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import deserialize
from safetensors.numpy import save_file

import trine
from trine._core import WeightStore

MAKE = runpy.run_path(str(Path(__file__).parent / "attacks" / "make_attacks.py"))
ATTACKS = MAKE["ATTACKS"]
GOOD = MAKE["GOOD"]


def open_store(*paths: Path) -> WeightStore:
    return WeightStore([(path, "") for path in paths])


def listing(content: bytes) -> list[tuple[str, str, tuple[int, ...]]]:
    """Names, dtypes and shapes as the reference implementation reads them."""
    return sorted(
        (name, info["dtype"], tuple(info["shape"])) for name, info in deserialize(content)
    )


def listing_of(store: WeightStore) -> list[tuple[str, str, tuple[int, ...]]]:
    return sorted((name, store.dtype(name), store.shape(name)) for name in store.names())


@pytest.mark.parametrize("attack", ATTACKS, ids=[attack.name for attack in ATTACKS])
def test_attack_is_refused(attack: Any, tmp_path: Path) -> None:
    path = MAKE["write"](attack, tmp_path)
    with pytest.raises(trine.ModelError) as caught:
        open_store(path)
    message = str(caught.value)
    assert any(name in message for name in attack.files), message
    for part in attack.mentions:
        assert part in message
    assert len(message) < 2000
    assert message.isprintable()


def test_error_stays_readable_when_the_path_is_not_utf8(tmp_path: Path) -> None:
    with pytest.raises(trine.ModelError, match="cannot open"):
        open_store(tmp_path / "absent-\udcff.safetensors")


@pytest.mark.parametrize("size", range(len(GOOD)))
def test_every_truncation_is_refused(size: int, tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes(GOOD[:size])
    with pytest.raises(trine.ModelError, match=r"cut\.safetensors: "):
        open_store(path)


HEADERS = {
    "reordered": {"b": ("U8", [3], 8, 11), "c": ("F16", [], 11, 13), "a": ("F32", [2], 0, 8)},
    "odd_start": {"a": ("U8", [1], 0, 1), "b": ("F64", [1], 1, 9)},
    "scalars": {"a": ("I64", [], 0, 8), "b": ("BOOL", [], 8, 9)},
    "empty_tensors": {"a": ("F32", [0, 7], 0, 0), "b": ("U8", [2], 0, 2), "c": ("I16", [0], 2, 2)},
    "many_dimensions": {"a": ("U8", [1] * 70, 0, 1)},
    "unicode": {"é.模型": ("BF16", [1], 0, 2), 'a\n"\\': ("U16", [1], 2, 4), "": ("I8", [1], 4, 5)},
    "narrow_types": {
        "a": ("F8_E4M3", [2], 0, 2),
        "b": ("F8_E5M2", [1], 2, 3),
        "c": ("U32", [1], 3, 7),
    },
    "wide_types": {"a": ("U64", [1], 0, 8), "b": ("F64", [2], 8, 24), "c": ("I32", [1, 1], 24, 28)},
    "nothing": {},
}


@pytest.mark.parametrize("padding", range(9))
@pytest.mark.parametrize("name", HEADERS)
def test_valid_file_is_read_as_by_the_reference(name: str, padding: int, tmp_path: Path) -> None:
    tensors = {
        key: {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        for key, (dtype, shape, *offsets) in HEADERS[name].items()
    }
    header = json.dumps(tensors).encode() + b" " * padding
    size = max((info["data_offsets"][1] for info in tensors.values()), default=0)
    content = struct.pack("<Q", len(header)) + header + bytes(size)
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    store = open_store(path)
    assert listing_of(store) == listing(content)
    assert store.bytes_mapped == len(content)


def test_file_written_by_the_reference(tmp_path: Path) -> None:
    tensors = {
        "embeddings.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
        "half": np.ones((5,), np.float16),
        "ids": np.arange(3, dtype=np.int64),
        "flag": np.array(True),
        "none": np.zeros((0, 3), np.uint8),
    }
    path = tmp_path / "model.safetensors"
    save_file(tensors, path, metadata={"format": "pt", "name": "é"})
    store = open_store(path)
    assert listing_of(store) == listing(path.read_bytes())
    with pytest.raises(
        trine.ModelError, match=r"no tensor 'embedding\.weight'.*'embeddings\.weight'"
    ):
        store.shape("embedding.weight")


def test_index_with_good_shards(tmp_path: Path) -> None:
    for name, content in (("A.safetensors", MAKE["A"]), ("B.safetensors", MAKE["B"])):
        (tmp_path / name).write_bytes(content)
    index = tmp_path / MAKE["INDEX"]
    index.write_text(json.dumps({"metadata": {"total_size": 3}, "weight_map": MAKE["GOOD_MAP"]}))
    assert open_store(index).names() == ["a", "b", "c"]


def test_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    first, second = tmp_path / "1.safetensors", tmp_path / "2.safetensors"
    first.write_bytes(MAKE["A"])
    second.write_bytes(MAKE["B_WITH_A"])
    with pytest.raises(
        trine.ModelError, match=r"2\.safetensors: tensor 'a': is also in .*1\.safetensors"
    ):
        open_store(first, second)
