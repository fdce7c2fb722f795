# SPDX-License-Identifier: Apache-2.0
"""GGUF files are read as by the reference package; abusive ones end in a ModelError."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf_files import Tensor, encoded, gguf
from make_gguf_attacks import ATTACKS, GOOD, Attack

import trine
from trine import nn
from trine._core import WeightStore, read_gguf

FIXTURES = Path(__file__).parent / "gguf"
BLOCKS = dict(np.load(FIXTURES / "blocks.npz"))


def open_store(path: Path) -> WeightStore:
    return WeightStore([(path, "")])


@pytest.mark.parametrize("kind", BLOCKS)
def test_blocks_are_the_floats_of_the_reference(kind: str) -> None:
    store = open_store(FIXTURES / "blocks.gguf")
    assert store.dtype(kind) == kind
    assert store.shape(kind) == BLOCKS[kind].shape
    got = store.floats(kind)
    np.testing.assert_array_equal(got.view(np.uint32), BLOCKS[kind].view(np.uint32))


@pytest.mark.parametrize("kind", BLOCKS)
def test_graph_takes_blocks(kind: str) -> None:
    """A table of two rows of 256 and a linear layer of the same numbers."""
    store = open_store(FIXTURES / "blocks.gguf")
    g = nn.Graph(store)
    weight = g.weight(kind)
    x = nn.embedding((g.input("input_ids"), weight))
    g.output("rows", x)
    g.output("products", g.add("linear", [x, weight]))
    model = g.compile(threads=1)
    tokens = np.array([0, 1, 1], np.int32)
    out = model.run(tokens, np.array([0, 3], np.int32), outputs=["rows", "products"])
    table = BLOCKS[kind]
    np.testing.assert_array_equal(out["rows"], table[tokens])
    exact = table[tokens].astype(np.float64) @ table.T.astype(np.float64)
    size = np.abs(table[tokens]).astype(np.float64) @ np.abs(table.T).astype(np.float64)
    assert (np.abs(out["products"] - exact) <= 256 * 2**-24 * size).all()
    assert model.info()["parameters"] == 512


def test_values_of_every_type() -> None:
    metadata, tensors = read_gguf(FIXTURES / "llama.gguf")
    assert {k: v for k, v in metadata.items() if k.startswith("test.")} == {
        "test.nested": [[1, 2], [3]],
        "test.bool": True,
        "test.f64": 0.1,
        "test.u8": 255,
        "test.i8": -128,
        "test.i16": -32768,
        "test.i64": -(2**63),
        "test.u64": 2**64 - 1,
    }
    assert ("token_embd.weight", "Q4_0", (400, 32)) in tensors
    assert len(metadata["tokenizer.ggml.tokens"]) == 400


def test_text_that_is_not_utf8_is_bytes(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf([encoded("k", [b"\xff", "é"])]))
    assert read_gguf(path)[0] == {"k": [b"\xff", "é"]}


def test_types_that_are_not_read_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf([], [Tensor("w", (256,), 23, 0)], bytes(136)))
    store = open_store(path)
    assert store.dtype("w") == "IQ4_XS"
    with pytest.raises(trine.ModelError, match=r"IQ4_XS.*Q4_K, Q5_K and Q6_K are read"):
        store.floats("w")
    with pytest.raises(trine.ModelError, match=r'"w" of .*m\.gguf is IQ4_XS; .*Q6_K are read'):
        nn.Graph(store).weight("w")


@pytest.mark.parametrize("attack", ATTACKS, ids=[a.name for a in ATTACKS])
def test_attack_is_refused(attack: Attack, tmp_path: Path) -> None:
    path = tmp_path / f"{attack.name}.gguf"
    path.write_bytes(attack.content)
    for opener in (open_store, read_gguf):
        with pytest.raises(trine.ModelError) as caught:
            opener(path)
        message = str(caught.value)
        assert path.name in message
        for part in attack.mentions:
            assert part in message
        assert len(message) < 2000
        assert message.isprintable()


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(GOOD)
    assert open_store(path).names() == ["w", "q", "scalar"]
    for size in range(len(GOOD)):
        path.write_bytes(GOOD[:size])
        with pytest.raises(trine.ModelError, match=r"cut\.gguf: "):
            open_store(path)


def test_every_changed_byte_is_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "changed.gguf"
    refused = 0
    for at in range(len(GOOD) - 132):
        for value in {0, 0xFF, GOOD[at] ^ 1, GOOD[at] ^ 0x80} - {GOOD[at]}:
            path.write_bytes(GOOD[:at] + bytes([value]) + GOOD[at + 1 :])
            try:
                read_gguf(path)
                store = open_store(path)
                for name in store.names():
                    store.read(name)
            except trine.ModelError:
                refused += 1
    assert refused > len(GOOD)
