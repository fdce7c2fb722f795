# SPDX-License-Identifier: Apache-2.0
"""The ops of Llama's layers in graphs: node by node against ref, and refused where they should."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trine import ModelError, _core, nn

MODEL = Path(__file__).resolve().parent.parent / "golden" / "heads" / "model"
TABLE = "embeddings.word_embeddings.weight"


@pytest.fixture
def graph() -> nn.Graph:
    return nn.Graph(_core.WeightStore([(MODEL / "model.safetensors", "")]))


def embedded(g: nn.Graph) -> nn.Value:
    return nn.embedding((g.input("input_ids"), g.weight(TABLE)))


@pytest.mark.parametrize(
    "lengths",
    [
        {},
        {"long_inv_freq": [0.5, 0.25], "original_length": 3},
        {"base": 10000.0, "factor": 4.0, "original_length": 3},
    ],
)
def test_node_by_node(graph: nn.Graph, lengths: dict[str, object]) -> None:
    x = embedded(graph)
    heads = x.cols // 8
    table = nn.rotary(graph.input("input_ids"), [1.0, 0.01], scaling=1.25, **lengths)  # type: ignore[arg-type]
    y = nn.rms_norm(x, graph.scope("embeddings.LayerNorm"), eps=1e-6)
    y = nn.rope(nn.scale(y, 0.3), table, heads=heads)
    graph.output("y", nn.gated(y, x, "silu"))
    ids, offsets = np.arange(9, dtype=np.int32), np.array([0, 2, 9], np.int32)
    compared = _core.compare(graph.core, ids, offsets, ["y"], 2)
    assert {node["op"] for node in compared} >= {"rms_norm", "rope", "rotary", "gated", "scale"}
    for node in compared:
        assert node["max_abs_difference"] <= 1e-6 * (1 + node["max_abs_reference"]), node


def test_table_is_cosines_then_sines_of_positions_in_each_sequence(graph: nn.Graph) -> None:
    inv_freq = [1.0, 0.1, 0.001]
    graph.output("table", nn.rotary(graph.input("input_ids"), inv_freq))
    ids, offsets = np.zeros(7, np.int32), np.array([0, 2, 7], np.int32)
    got = graph.compile(threads=1).run(ids, offsets, outputs=["table"])["table"]
    positions = np.array([0, 1, 0, 1, 2, 3, 4], np.float32)
    angles = positions[:, None] * np.array(inv_freq, np.float32)
    np.testing.assert_allclose(got, np.hstack([np.cos(angles), np.sin(angles)]), atol=1e-7)


def test_a_sequences_own_length_picks_its_frequencies(graph: nn.Graph) -> None:
    ids = graph.input("input_ids")
    graph.output("table", nn.rotary(ids, [1.0, 0.1], long_inv_freq=[0.5, 0.05], original_length=4))
    model = graph.compile(threads=1)

    def run(lengths: list[int]) -> list[np.ndarray]:
        offsets = np.cumsum([0, *lengths]).astype(np.int32)
        out = model.run(np.zeros(offsets[-1], np.int32), offsets, outputs=["table"])["table"]
        return np.split(out, offsets[1:-1])

    short, long = run([4, 5])
    np.testing.assert_array_equal(short, run([4])[0])
    np.testing.assert_array_equal(long, run([5])[0])
    np.testing.assert_allclose(short[3, 0], np.cos(3.0), atol=1e-7)
    np.testing.assert_allclose(long[3, 0], np.cos(1.5), atol=1e-7)


def test_refused(graph: nn.Graph) -> None:
    x = embedded(graph)
    ids = graph.input("input_ids")
    with pytest.raises(ModelError, match=r"scale \(node .*: the factor must be finite"):
        nn.scale(x, float("nan"))
    with pytest.raises(ModelError, match="the scaling must be finite"):
        nn.rotary(ids, [1.0], scaling=float("inf"))
    with pytest.raises(ModelError, match="dynamic frequencies need base > 0"):
        nn.rotary(ids, [1.0, 0.1], original_length=8)
    with pytest.raises(ModelError, match=r"long_inv_freq must be \[2\]"):
        nn.rotary(ids, [1.0, 0.1], long_inv_freq=[1.0], original_length=8)
    with pytest.raises(ModelError, match="a constant is empty"):
        graph.constant([])
    table = nn.rotary(ids, [1.0] * 5)
    with pytest.raises(ModelError, match="don't split into 3 heads"):
        nn.rope(nn.columns(x, 0, 32), table, heads=3)
    with pytest.raises(ModelError, match="a table of 10 columns doesn't fit heads of 8"):
        nn.rope(nn.columns(x, 0, 32), table, heads=4)
    with pytest.raises(ModelError, match=r"must be .* as input 0"):
        nn.gated(x, nn.columns(x, 0, 16), "silu")
