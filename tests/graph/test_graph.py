# SPDX-License-Identifier: Apache-2.0
"""Graphs as Python writes them: names in errors, dumps, unused tensors, comparison with ref."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from trine import ModelError, _core, models, nn

MODEL = Path(__file__).resolve().parent.parent / "golden" / "heads" / "model"


@pytest.fixture
def store() -> _core.WeightStore:
    return _core.WeightStore([(MODEL / "model.safetensors", "")])


@pytest.fixture
def config() -> dict[str, object]:
    return dict(json.loads((MODEL / "config.json").read_text()))


def test_every_node_names_its_scope_and_line(
    store: _core.WeightStore, config: dict[str, object]
) -> None:
    dump = models.build(store, config, "MPNetModel").core.dump()
    line = next(line for line in dump.splitlines() if "attention(" in line)
    assert "encoder.layer.0.attention.attn" in line
    assert "mpnet.py:" in line
    assert dump.splitlines()[-1].startswith("output pooler_output = %")


def test_compiled_plan_is_seven_steps_a_layer(
    store: _core.WeightStore, config: dict[str, object]
) -> None:
    graph = models.build(store, config, "MPNetModel")
    model = graph.compile()
    dump = model.dump(["last_hidden_state"])
    for op, count in {"linear": 4, "attention": 1, "layer_norm": 2}.items():
        layers = config["num_hidden_layers"]
        assert isinstance(layers, int)
        assert dump.count(f" {op}(") == count * layers + (op == "layer_norm"), op
    assert " add(" not in dump
    assert "relative_bias" not in dump


def test_unknown_attribute_op_and_output(store: _core.WeightStore) -> None:
    g = nn.Graph(store)
    ids = g.input("input_ids")
    with pytest.raises(ModelError, match="op positions has no attribute paddng"):
        g.add("positions", [ids], paddng=1)
    with pytest.raises(ModelError, match='unknown op "postions"'):
        g.add("postions", [ids])
    with pytest.raises(ModelError, match="attribute padding_idx cannot be 'one'"):
        g.add("positions", [ids], padding_idx="one")
    with pytest.raises(ModelError, match='unknown input "ids"'):
        g.input("ids")


def test_missing_tensor_names_the_nearest(store: _core.WeightStore) -> None:
    g = nn.Graph(store)
    with pytest.raises(
        ModelError, match=r"no tensor 'embeddings.word_embedding.weight'.*word_embeddings"
    ):
        g.weight("embeddings.word_embedding.weight")


def test_a_bias_that_is_left_out_is_an_error(store: _core.WeightStore) -> None:
    """The defect that drops the bias of a classifier in silence cannot happen."""
    g = nn.Graph(store)
    x = nn.embedding((g.input("input_ids"), g.weight("embeddings.word_embeddings.weight")))
    g.output("y", nn.linear(x, g.scope("pooler.dense"), bias=False))
    with pytest.raises(
        ModelError, match=r'tensor "pooler.dense.bias" of .*model.safetensors is not used'
    ):
        g.compile()


def test_tied_weight_is_one_node(store: _core.WeightStore) -> None:
    g = nn.Graph(store)
    assert g.weight("pooler.dense.weight").id == g.weight("pooler.dense.weight").id


# Sums of at most 64 terms, rounded to float, through two layers with norms between. In bf16 both
# round the same values, but one that lies near the middle between two bf16 may go either way: a
# whole unit, 2**-8 of itself, of few of the terms of a sum, and again in the next layer.
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("isa", _core.isas())
def test_every_node_agrees_with_the_reference(
    isa: str,
    dtype: str,
    store: _core.WeightStore,
    config: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRINE_ISA", isa)
    modules = [{"type": "pooling", "modes": ["mean", "max"]}, {"type": "normalize"}]
    graph = models.build(store, config, "MPNetModel", modules)
    rng = np.random.default_rng(0)
    lengths = [1, 40, 3, 17]
    ids = rng.integers(2, 60, sum(lengths)).astype(np.int32)
    offsets = np.cumsum([0, *lengths]).astype(np.int32)
    outputs = ["pooler_output", "sentence_embedding"]
    nodes = _core.compare(graph.core, ids, offsets, outputs, 2, dtype)
    assert len(nodes) > 20
    tolerance = 1e-5 if dtype == "float32" else 2**-8
    for node in nodes:
        assert node["max_abs_difference"] <= tolerance * max(1.0, node["max_abs_reference"]), node


def test_unknown_isa(
    store: _core.WeightStore, config: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRINE_ISA", "avx1024")
    graph = models.build(store, config, "MPNetModel")
    with pytest.raises(_core.DeviceError, match="avx1024"):
        graph.compile()


def test_ops_are_documented() -> None:
    for name, _, meaning in _core.ops():
        assert meaning, name


def test_spread(store: _core.WeightStore) -> None:
    g = nn.Graph(store)
    x = nn.embedding((g.input("input_ids"), g.weight("embeddings.word_embeddings.weight")))
    first = nn.pool(x, "cls")
    g.output("x", x)
    g.output("y", nn.spread(first))
    ids, offsets = np.array([4, 5, 6, 7, 8], np.int32), np.array([0, 2, 5], np.int32)
    got = g.compile(threads=1).run(ids, offsets, outputs=["x", "y"])
    np.testing.assert_array_equal(got["y"], got["x"][[0, 0, 2, 2, 2]])
    for node in _core.compare(g.core, ids, offsets, ["y"], 1):
        assert node["max_abs_difference"] == 0, node
    with pytest.raises(ModelError, match=r"spread \(node .*: spreads rows of sequences, not"):
        nn.spread(x)
