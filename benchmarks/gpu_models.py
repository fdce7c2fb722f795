# SPDX-License-Identifier: Apache-2.0
"""Folders with models of published shapes and random weights, for gpu.py: written with numpy."""

from __future__ import annotations

import json
import zlib
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from trine.weight_writers import Stored, write_safetensors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ENCODER = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
}
LLAMA = {
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
# MPNet-base, DeBERTa-v3-base, Llama-3.2-1B; the last one as it embeds and as it generates.
CONFIGS: dict[str, dict[str, Any]] = {
    "mpnet": {
        **ENCODER,
        "architectures": ["MPNetModel"],
        "model_type": "mpnet",
        "vocab_size": 30527,
        "max_position_embeddings": 514,
        "layer_norm_eps": 1e-5,
    },
    "deberta": {
        **ENCODER,
        "architectures": ["DebertaV2Model"],
        "model_type": "deberta-v2",
        "vocab_size": 128100,
        "max_position_embeddings": 512,
        "layer_norm_eps": 1e-7,
        "relative_attention": True,
        "position_buckets": 256,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": "p2c|c2p",
        "position_biased_input": False,
        "type_vocab_size": 0,
    },
    "llama": {**LLAMA, "architectures": ["LlamaModel"]},
    "generate": {**LLAMA, "architectures": ["LlamaForCausalLM"]},
}
NORM = ("weight", "bias")


def norm(name: str, width: int, parts: tuple[str, ...] = NORM) -> Iterator[tuple[str, list[int]]]:
    """A norm's tensors."""
    for part in parts:
        yield f"{name}.{part}", [width]


def linear(name: str, rows: int, columns: int) -> Iterator[tuple[str, list[int]]]:
    """A linear's tensors."""
    yield f"{name}.weight", [rows, columns]
    yield f"{name}.bias", [rows]


def encoder(c: dict[str, Any], attention: str, linears: str) -> Iterator[tuple[str, list[int]]]:
    """Embeddings and layers: `linears` are q, k, v and what is behind attention."""
    width, inner = c["hidden_size"], c["intermediate_size"]
    yield "embeddings.word_embeddings.weight", [c["vocab_size"], width]
    yield from norm("embeddings.LayerNorm", width)
    for i in range(c["num_hidden_layers"]):
        layer = f"encoder.layer.{i}"
        for name in linears.split():
            yield from linear(f"{layer}.attention.{name}", width, width)
        yield from norm(f"{layer}.attention.{attention}LayerNorm", width)
        yield from linear(f"{layer}.intermediate.dense", inner, width)
        yield from linear(f"{layer}.output.dense", width, inner)
        yield from norm(f"{layer}.output.LayerNorm", width)


def mpnet(c: dict[str, Any]) -> Iterator[tuple[str, list[int]]]:
    """All tensors, with transformers' names, and their shapes."""
    width = c["hidden_size"]
    yield from encoder(c, "", "attn.q attn.k attn.v attn.o")
    yield "embeddings.position_embeddings.weight", [c["max_position_embeddings"], width]
    yield "encoder.relative_attention_bias.weight", [32, c["num_attention_heads"]]
    yield from linear("pooler.dense", width, width)


def deberta(c: dict[str, Any]) -> Iterator[tuple[str, list[int]]]:
    """Likewise."""
    linears = "self.query_proj self.key_proj self.value_proj output.dense"
    yield from encoder(c, "output.", linears)
    yield "encoder.rel_embeddings.weight", [2 * c["position_buckets"], c["hidden_size"]]
    yield from norm("encoder.LayerNorm", c["hidden_size"])


def llama(c: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, list[int]]]:
    """Likewise."""
    width, inner = c["hidden_size"], c["intermediate_size"]
    keys = c["num_key_value_heads"] * c["head_dim"]
    yield f"{prefix}embed_tokens.weight", [c["vocab_size"], width]
    for i in range(c["num_hidden_layers"]):
        layer = f"{prefix}layers.{i}"
        for name, rows in (("q", width), ("k", keys), ("v", keys), ("o", width)):
            yield f"{layer}.self_attn.{name}_proj.weight", [rows, width]
        for name, rows, columns in (("gate", inner, width), ("up", inner, width)):
            yield f"{layer}.mlp.{name}_proj.weight", [rows, columns]
        yield f"{layer}.mlp.down_proj.weight", [width, inner]
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield from norm(f"{layer}.{name}", width, NORM[:1])
    yield from norm(f"{prefix}norm", width, NORM[:1])


TENSORS = {
    "mpnet": mpnet,
    "deberta": deberta,
    "llama": llama,
    "generate": partial(llama, prefix="model."),
}


def values(shape: list[int], name: str, *, half: bool) -> bytes:
    """Norms of 1, biases of 0, else normal numbers of 0.02: some millions, again and again."""
    count = int(np.prod(shape))
    if len(shape) == 1:
        numbers = np.full(count, float(name.endswith("weight")), np.float32)
    else:
        # Of a prime's length, so that no two rows are the same.
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        some = rng.standard_normal(4_000_037, np.float32)
        numbers = np.resize(some * np.float32(0.02), count)
    if half:  # bfloat16, cut off
        numbers = numbers.view(np.uint32) >> np.uint32(16)
        return numbers.astype(np.uint16).tobytes()
    return numbers.tobytes()


def write_model(kind: str, layers: int | None, folder: Path) -> str:
    """Write a model; returns its class's name. Llama is in bfloat16, as it is published."""
    config = dict(CONFIGS[kind])
    if layers is not None:
        config["num_hidden_layers"] = layers
    half = config["model_type"] == "llama"
    config["dtype"] = "bfloat16" if half else "float32"
    (folder / "config.json").write_text(json.dumps(config))
    tensors = [
        Stored(
            name, "BF16" if half else "F32", tuple(shape), partial(values, shape, name, half=half)
        )
        for name, shape in TENSORS[kind](config)
    ]
    write_safetensors(folder / "model.safetensors", tensors)
    return str(config["architectures"][0])
