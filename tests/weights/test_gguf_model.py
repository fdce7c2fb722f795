# SPDX-License-Identifier: Apache-2.0
"""GGUF to what a Hugging Face folder says: configuration, names, the order of rows, tokens."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf_files import KEYS, TABLE, array, encoded, file_of, gguf, key, write, write_blocks

import trine
from trine import _core, nn
from trine import gguf as reader
from trine._core import WeightStore, read_gguf
from trine.models import ARCHITECTURES, Architecture

HERE = Path(__file__).parent

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 6,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": True,
    "rope_theta": 10000.0,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}


def floats(*shape: int) -> tuple[str, tuple[int, ...], bytes]:
    return "F32", shape, np.arange(np.prod(shape), dtype=np.float32).tobytes()


def test_config(tmp_path: Path) -> None:
    model = reader.read(write(tmp_path))
    assert model.config == CONFIG
    assert model.store.names() == ["model.embed_tokens.weight"]
    assert not model.tokenizer.exist()


def scaling(**values: Any) -> dict[str, Any]:
    return {f"llama.rope.scaling.{name}": value for name, value in values.items()}


ROPE = {"rope_type": "default", "rope_theta": 10000.0}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"llama.attention.head_count_kv": None}, {"num_key_value_heads": 4}),
        ({"llama.attention.head_count_kv": [2, 2]}, {"num_key_value_heads": 2}),
        (
            {"llama.attention.key_length": 8, "llama.attention.value_length": 8},
            {"head_dim": 8},
        ),
        (
            {"llama.rope.freq_base": 5e5},
            {"rope_theta": 5e5, "rope_parameters": ROPE | {"rope_theta": 5e5}},
        ),
        (scaling(type="none", factor=4.0), {}),
        (scaling(type="linear", factor=0.0), {}),
        (
            scaling(type="linear", factor=4.0),
            {"rope_parameters": ROPE | {"rope_type": "linear", "factor": 4.0}},
        ),
        (
            {"llama.rope.scale_linear": 2.0},
            {"rope_parameters": ROPE | {"rope_type": "linear", "factor": 2.0}},
        ),
        (
            scaling(type="yarn", factor=4.0, original_context_length=16, yarn_beta_fast=30.0),
            {
                "rope_parameters": ROPE
                | {
                    "rope_type": "yarn",
                    "factor": 4.0,
                    "original_max_position_embeddings": 16,
                    "beta_fast": 30.0,
                }
            },
        ),
        ({"llama.attention.sliding_window": 8}, {"sliding_window": 8}),
        ({"tokenizer.ggml.eos_token_id": 2}, {"eos_token_id": 2}),
        (
            {
                "tokenizer.ggml.bos_token_id": 1,
                "tokenizer.ggml.eos_token_id": 2,
                "tokenizer.ggml.eot_token_id": 3,
                "tokenizer.ggml.padding_token_id": 0,
            },
            {"bos_token_id": 1, "eos_token_id": [2, 3], "pad_token_id": 0},
        ),
    ],
)
def test_config_of(changes: dict[str, Any], expected: dict[str, Any], tmp_path: Path) -> None:
    assert reader.read(write(tmp_path, changes)).config == CONFIG | expected


def test_yarn_scales_attention_as_ggml(tmp_path: Path) -> None:
    path = write(tmp_path, scaling(type="yarn", factor=4.0, attn_factor=2.0))
    parameters = reader.read(path).config["rope_parameters"]
    assert parameters["attention_factor"] == pytest.approx(2 * (0.1 * np.log(4) + 1))


def test_granite(tmp_path: Path) -> None:
    keys = {k.replace("llama", "granite"): v for k, v in KEYS.items()} | {
        "general.architecture": "granite",
        "granite.attention.scale": 0.015625,
        "granite.embedding_scale": 12.0,
        "granite.residual_scale": 0.22,
        "granite.logit_scale": 8.0,
    }
    path = tmp_path / "m.gguf"
    plain = keys | {"granite.attention.scale": 0.0, "granite.logit_scale": 0.0}
    path.write_bytes(file_of(plain, {"token_embd.weight": TABLE}))
    config = reader.read(path).config
    assert config["attention_multiplier"] == 0.5
    assert "logits_scaling" not in config
    path.write_bytes(file_of(keys, {"token_embd.weight": TABLE}))
    assert reader.read(path).config == CONFIG | {
        "architectures": ["GraniteForCausalLM"],
        "model_type": "granite",
        "attention_multiplier": 0.015625,
        "embedding_multiplier": 12.0,
        "residual_multiplier": 0.22,
        "logits_scaling": 8.0,
    }


def test_names_and_order_of_rows(tmp_path: Path) -> None:
    tensors = {
        "output.weight": floats(6, 16),
        "output_norm.weight": floats(16),
        "blk.0.attn_norm.weight": floats(16),
        "blk.0.attn_q.weight": floats(16, 16),
        "blk.0.attn_q.bias": floats(16),
        "blk.0.attn_k.weight": floats(8, 16),
        "blk.0.attn_v.weight": floats(8, 16),
        "blk.0.attn_output.weight": floats(16, 16),
        "blk.0.ffn_norm.weight": floats(16),
        "blk.0.ffn_gate.weight": floats(24, 16),
        "blk.0.ffn_up.bias": floats(24),
        "blk.0.ffn_down.weight": floats(16, 24),
        "blk.x.attn_q.weight": floats(2),
        "blk.0.attn_rot_embd": floats(2),
        "rope_freqs.weight": ("F32", (2,), struct.pack("<2f", 1.0, 8.0)),
    }
    model = reader.read(write(tmp_path, tensors=tensors))
    assert set(model.store.names()) == {
        "model.embed_tokens.weight",
        "lm_head.weight",
        "model.norm.weight",
        "model.layers.0.input_layernorm.weight",
        "model.layers.0.self_attn.q_proj.weight",
        "model.layers.0.self_attn.q_proj.bias",
        "model.layers.0.self_attn.k_proj.weight",
        "model.layers.0.self_attn.v_proj.weight",
        "model.layers.0.self_attn.o_proj.weight",
        "model.layers.0.post_attention_layernorm.weight",
        "model.layers.0.mlp.gate_proj.weight",
        "model.layers.0.mlp.up_proj.bias",
        "model.layers.0.mlp.down_proj.weight",
        "blk.x.attn_q.weight",
        "blk.0.attn_rot_embd",
        "rope_freqs.weight",
    }
    assert not model.config["tie_word_embeddings"]
    assert model.config["attention_bias"]
    assert model.config["mlp_bias"]
    assert model.config["rope_parameters"] == {
        "rope_type": "factors",
        "rope_theta": 10000.0,
        "factors": [1.0, 8.0],
    }
    stored = np.arange(256, dtype=np.float32).reshape(16, 16)
    order = [h * 4 + i for h in range(4) for i in (0, 2, 1, 3)]
    attention = "model.layers.0.self_attn"
    np.testing.assert_array_equal(model.store.floats(f"{attention}.q_proj.weight"), stored[order])
    np.testing.assert_array_equal(model.store.floats(f"{attention}.q_proj.bias"), order)
    np.testing.assert_array_equal(
        model.store.floats(f"{attention}.k_proj.weight"), stored[order[:8]]
    )
    np.testing.assert_array_equal(model.store.floats(f"{attention}.v_proj.weight"), stored[:8])
    assert model.store.bytes_mapped == (tmp_path / "m.gguf").stat().st_size


def test_file_of_the_reference_writer() -> None:
    """Rows of q and k are numbered in transformers' order; its writer has them permuted."""
    model = reader.read(HERE / "gguf" / "llama.gguf")
    store = model.store
    rows = np.arange(32, dtype=np.float32)
    attention = "model.layers.0.self_attn"
    np.testing.assert_array_equal(store.floats(f"{attention}.q_proj.bias"), rows)
    np.testing.assert_array_equal(store.floats(f"{attention}.k_proj.bias"), rows[:16])
    np.testing.assert_array_equal(store.floats(f"{attention}.k_proj.weight")[:, 5], rows[:16])
    np.testing.assert_allclose(store.floats(f"{attention}.q_proj.weight")[:, 7], rows, rtol=1e-3)
    assert store.dtype(f"{attention}.q_proj.weight") == "Q8_0"
    assert model.config["rope_parameters"]["factors"] == [1, 1, 4.5, 8]


def test_graph_has_rows_in_order() -> None:
    """As packed weights, as a bias and as a table that is read in place."""
    store = reader.read(HERE / "gguf" / "llama.gguf").store
    g = nn.Graph(store)
    attention = g.scope("model.layers.0.self_attn")
    ids = g.input("input_ids")
    table = attention["k_proj"].weight("weight")  # F16, 16 rows that say their number
    x = nn.embedding((ids, table))
    g.output("table", x)
    g.output("q", nn.linear(x, attention["q_proj"]))
    g.ignore("model.layers.0.self_attn.k_proj.bias")
    tokens = np.arange(16, dtype=np.int32)
    out = g.compile(threads=2).run(tokens, np.array([0, 16], np.int32), outputs=["table", "q"])
    np.testing.assert_array_equal(out["table"], np.repeat(tokens[:, None], 32, 1))
    rows = np.arange(32)
    expected = 32.0 * np.outer(tokens, rows) + rows  # q's weight is in Q8_0
    np.testing.assert_allclose(out["q"], expected, rtol=1e-3)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"general.architecture": "mamba"}, r"general\.architecture: is 'mamba'; known are llama"),
        ({"general.architecture": None}, r"general\.architecture: is missing"),
        ({"general.architecture": 3}, r"general\.architecture: is 3, expected str"),
        ({"split.count": 3}, r"split\.count: the model is split over 3 files"),
        ({"llama.expert_count": 8}, r"llama\.expert_count: mixtures"),
        ({"llama.block_count": None}, r"llama\.block_count: is missing"),
        ({"llama.block_count": 0}, r"llama\.block_count: is 0, expected at least 1"),
        ({"llama.block_count": True}, r"llama\.block_count: is True, expected int"),
        ({"llama.block_count": "x" * 500}, r"llama\.block_count: is 'x{79}\.\.\., expected int"),
        ({"llama.attention.head_count": -4}, r"head_count: is -4"),
        ({"llama.attention.head_count": [4, 2]}, r"head_count: layers of different numbers"),
        ({"llama.attention.head_count": [0]}, r"head_count: is 0"),
        ({"llama.attention.head_count": []}, r"head_count: layers of different"),
        ({"llama.attention.layer_norm_rms_epsilon": float("nan")}, r"epsilon: is nan"),
        ({"llama.rope.dimension_count": 2}, r"dimension_count: is not the 4 dimensions"),
        ({"llama.attention.value_length": 8}, r"value_length: is not the 4 dimensions"),
        ({"llama.rope.scaling.type": "longrope"}, r"scaling\.type: is 'longrope'; none, linear"),
        ({"llama.rope.scaling.type": "yarn"}, r"scaling\.factor: is None"),
        ({"tokenizer.ggml.eos_token_id": 6}, r"eos_token_id: is 6, the vocabulary has 6 tokens"),
    ],
)
def test_keys_that_make_no_sense(changes: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    with pytest.raises(trine.ModelError, match=rf"m\.gguf: .*{complaint}"):
        reader.read(write(tmp_path, changes))


@pytest.mark.parametrize(
    ("tensors", "complaint"),
    [
        ({"token_embd.weight": floats(6)}, r"'token_embd\.weight' is no table"),
        ({"rope_freqs.weight": floats(3)}, r"'rope_freqs\.weight' is \(3,\), expected \(2,\)"),
        ({"blk.0.attn_q.weight": floats(6, 16)}, r"'blk\.0\.attn_q\.weight'.*pairs of rows"),
        (
            {
                "blk.0.attn_q.weight": floats(16, 16),
                "model.layers.0.self_attn.q_proj.weight": TABLE,
            },
            "is also in",
        ),
    ],
)
def test_tensors_that_make_no_sense(
    tensors: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(trine.ModelError, match=rf"m\.gguf: .*{complaint}"):
        reader.read(write(tmp_path, tensors=tensors))


def test_no_table(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf([encoded(k, v) for k, v in KEYS.items()]))
    with pytest.raises(trine.ModelError, match=r"m\.gguf: tensor 'token_embd\.weight' is no"):
        reader.read(path)


def test_load_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(trine.ModelError, match=r"no such file"):
        trine.load(str(tmp_path / "absent.gguf"))


def test_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way, with an architecture that is a table of embeddings."""

    def build(g: nn.Graph, _name: str, _config: dict[str, Any]) -> nn.Value:
        table = g.weight("model.embed_tokens.weight")
        x = nn.embedding((g.input("input_ids"), table))
        g.output("sentence_embedding", nn.pool(x, "mean"))
        return x

    table = Architecture(
        "LlamaForCausalLM", "llama", "embed", build, lambda c: c["max_position_embeddings"]
    )
    monkeypatch.setitem(ARCHITECTURES, "LlamaForCausalLM", table)
    path = HERE / "gguf" / "llama.gguf"
    model = trine.load(path)
    np.testing.assert_array_equal(model.encode("by the river"), np.zeros(32))
    info = model.info()
    assert info["architecture"] == "LlamaForCausalLM"
    assert info["dtype"] == _core.default_dtype()
    assert info["bytes_mapped"] == path.stat().st_size
    with pytest.raises(trine.ModelError, match="no model for the task 'fill'"):
        trine.load(str(path), task="fill")


def test_unpermuted_store_has_the_names_of_the_file() -> None:
    store = WeightStore([(HERE / "gguf" / "llama.gguf", "")])
    assert "blk.0.attn_q.weight" in store.names()


def test_long_arrays_are_quick(tmp_path: Path) -> None:
    """200 000 strings: a value of the metadata costs its place in the file."""
    one = struct.pack("<Q", 3) + b"abc"
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf([key("k", 9, array(8, one * 200_000, 200_000))]))
    assert read_gguf(path)[0]["k"] == ["abc"] * 200_000
    assert WeightStore([(path, "")]).names() == []


def test_a_compiled_file_of_several_types_of_blocks(tmp_path: Path) -> None:
    """Projections of one input in blocks of several types: each keeps its own there, too."""
    path, ids = write_blocks(tmp_path), [[5, 6, 39, 0, 7], [1, 2, 2, 9, 3]]
    for dtype in ("int4", "int8", "bfloat16", "float32"):
        options: dict[str, Any] = {"device": "cpu", "dtype": dtype, "task": "generate"}
        with trine.load(path, cache=False, **options) as model:
            expected = model.forward(ids)["logits"]
            model.save(tmp_path / "m.trine")
        with trine.load(tmp_path / "m.trine", device="cpu") as mapped:
            np.testing.assert_array_equal(mapped.forward(ids)["logits"], expected)
            assert mapped.generate(ids[0], max_new_tokens=4).tokens  # keys without queries
