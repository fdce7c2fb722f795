# SPDX-License-Identifier: Apache-2.0
"""int8 and int4 on GPUs beside the CPU: linears alone, whole models, one copy of tied tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from gguf_files import write_blocks

import trine
from trine import _core, devices, nn

if TYPE_CHECKING:
    from numpy.typing import NDArray

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
IDS = np.array([3, 70, 0, 41, 41, 7, 12, 66, 79], np.int32)
OFFSETS = np.array([0, 4, 5, 9], np.int32)
# A value between two integers may fall to the other one than on the CPU, where a norm or an
# activation differs in the last bit. That is 1/127 of the largest of 32 in one row of 36: less than
# 0.001 of all.
FALLEN = 2e-3
# The CPU attends in bfloat16 and a GPU in float32, so values between two integers fall to the other
# one here and there: in these tiny models by about as much as rounding costs. So whole models have
# to be about as near to float32 as the CPU's, and no further from them. Of GGUF's blocks, a share
# of all.
ATTENDED = 2e-2


def of_one_linear(device: str, dtype: str, columns: int) -> NDArray[np.float32]:
    """Rows of a table, times that table and then another one: both fixed inputs of many bits."""
    graph = nn.Graph(_core.WeightStore([(str(GOLDEN / "sentence" / "model.safetensors"), "")]))
    rng = np.random.default_rng(columns)

    def constant(*shape: int) -> nn.Value:
        values = rng.standard_normal(shape).ravel()
        return nn.Value(graph, graph.core.add_constant(values, list(shape)))

    table, bias = constant(80, columns), constant(80)
    x = nn.embedding((graph.input("input_ids"), table), tied=True)
    graph.output("y", nn.linear(x, graph.scope("a"), weight=table, bias=bias))
    plugin = devices.choose(device).plugin
    model = graph.compile(device=device, dtype=dtype, threads=1, plugin=plugin)
    return model.run(IDS, OFFSETS, outputs=["y"])["y"]


@pytest.mark.parametrize("columns", [64, 300])
def test_a_linear_has_the_cpus_numbers(device: str, columns: int) -> None:
    """In int8 they have the CPU's bits, for sums are exact; in int4 a group's sum is rounded."""
    got = of_one_linear(device, "int8", columns)
    np.testing.assert_array_equal(got, of_one_linear("cpu", "int8", columns))
    got, want = (of_one_linear(d, "int4", columns) for d in (device, "cpu"))
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-6 * np.abs(want).max())


def of_four_layers(device: str, dtype: str) -> NDArray[np.float32]:
    """Feed-forward layers with norms and residuals, no attention."""
    graph = nn.Graph(_core.WeightStore([(str(GOLDEN / "sentence" / "model.safetensors"), "")]))
    rng = np.random.default_rng(5)

    def constant(*shape: int) -> nn.Value:
        values = rng.standard_normal(shape).ravel() / np.sqrt(shape[-1])
        return nn.Value(graph, graph.core.add_constant(values, list(shape)))

    x = nn.embedding((graph.input("input_ids"), constant(80, 64)))
    for layer in range(4):
        wide, narrow = graph.scope(f"wide{layer}"), graph.scope(f"narrow{layer}")
        up = nn.linear(x, wide, weight=constant(96, 64), bias=constant(96), activation="gelu")
        down = nn.linear(up, narrow, weight=constant(64, 96), bias=constant(64))
        x = graph.add("add", [down, x], name=f"sum{layer}")
        x = graph.add("layer_norm", [x, constant(64), constant(64)], name=f"norm{layer}", eps=1e-5)
    graph.output("y", x)
    plugin = devices.choose(device).plugin
    model = graph.compile(device=device, dtype=dtype, threads=1, plugin=plugin)
    return model.run(IDS, OFFSETS, outputs=["y"])["y"]


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_layers_beside_the_cpu(device: str, dtype: str) -> None:
    want = of_four_layers("cpu", dtype)
    rounding = error(want, of_four_layers("cpu", "float32"))
    assert error(of_four_layers(device, dtype), want) <= FALLEN < rounding


def forward(folder: Path, device: Any, dtype: Any, **options: Any) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    lengths = np.array([30, 5, 1])
    mask = (np.arange(30) < lengths[:, None]).astype(np.int64)
    with trine.load(folder, device=device, dtype=dtype, **options) as model:
        assert model.info()["dtype"] == dtype
        ids = rng.integers(5, model.config["vocab_size"], mask.shape)
        found: dict[str, Any] = model.forward(ids, mask)
        if device != "cpu":  # a text alone has the bits that it has in a batch
            for name, values in model.forward(ids[1:2, :5]).items():
                part = found[name][1][tuple(slice(n) for n in values.shape[1:])]
                np.testing.assert_array_equal(values[0], part)
    return found


def error(got: Any, want: Any) -> float:
    """Root mean square of the difference, as a share of the values'."""
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


@pytest.mark.parametrize("dtype", ["int8", "int4"])
@pytest.mark.parametrize("name", ["heads/model", "deberta/model-v2", "llama/generate"])
def test_models_beside_the_cpu(device: str, name: str, dtype: str) -> None:
    got, want, exact = (
        forward(GOLDEN / name, *how)
        for how in ((device, dtype), ("cpu", dtype), ("cpu", "float32"))
    )
    for output, values in want.items():
        rounding = error(values, exact[output])
        assert error(got[output], exact[output]) <= 1.5 * rounding, output
        assert error(got[output], values) <= rounding, output


def test_blocks_of_gguf(device: str, tmp_path: Path) -> None:
    path, ids = write_blocks(tmp_path), [[5, 6, 39, 0, 7], [1, 2, 2, 9, 3]]
    logits = []
    for how in (device, "cpu"):
        with trine.load(path, device=how, dtype="int4", task="generate") as model:
            logits.append(model.forward(ids)["logits"])
    assert error(*logits) <= ATTENDED
    # A compiled file has the blocks in the CPU's forms, alone and merged: the same bits from there.
    with trine.load(path, device="cpu", dtype="int4", task="generate") as cpu:
        cpu.save(tmp_path / "m.trine")
    with trine.load(tmp_path / "m.trine", device=device) as mapped:
        np.testing.assert_array_equal(mapped.forward(ids)["logits"], logits[0])


def test_generation(device: str) -> None:
    prompts = [[5, 6, 7, 8, 9], [10, 3]]
    with trine.load(GOLDEN / "llama" / "generate", device=device, dtype="int4") as gpu:
        together = [g.tokens for g in gpu.generate(prompts, max_new_tokens=8)]
        assert together == [gpu.generate(p, max_new_tokens=8).tokens for p in prompts]


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_a_tied_table_is_one_copy(device: str, dtype: Any) -> None:
    folder = GOLDEN / "llama" / "generate"
    # The others' scales would come to as many bytes as the tiny table.
    with trine.load(folder, device=device, dtype=dtype, keep=["*_proj.weight"]) as model:
        assert model.config["tie_word_embeddings"]
        info = model.info()  # before a run: weights alone are there
        table = model.config["vocab_size"] * model.config["hidden_size"]
        assert info["bytes_allocated"] - info["weight_bytes"] < table / 2
