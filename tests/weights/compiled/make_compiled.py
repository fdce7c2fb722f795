# SPDX-License-Identifier: Apache-2.0
"""Write the small compiled files that fuzzing starts from: an encoder of each family, a decoder.

python tests/weights/compiled/make_compiled.py
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

import trine

HERE = Path(__file__).resolve().parent
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 18}
ENCODER = {**SMALL, "intermediate_size": 16, "max_position_embeddings": 8}
CONFIGS: dict[str, dict[str, Any]] = {
    "mpnet": {**ENCODER, "architectures": ["MPNetModel"], "model_type": "mpnet"},
    "deberta": {
        **ENCODER,
        "architectures": ["DebertaV2ForTokenClassification"],
        "model_type": "deberta-v2",
        "relative_attention": True,
        "position_buckets": 4,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "type_vocab_size": 0,
    },
    "llama": {
        **SMALL,
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "intermediate_size": 16,
        "max_position_embeddings": 64,
        "num_key_value_heads": 1,
        "tie_word_embeddings": True,
    },
}


def shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors that a configuration asks for."""
    linear = {"weight": (16, 16), "bias": (16,)}
    norm = {"weight": (16,), "bias": (16,)}
    if name == "llama":
        parts = {
            "model.embed_tokens": {"weight": (18, 16)},
            "model.norm": {"weight": (16,)},
            **{
                f"model.layers.0.{n}_layernorm": {"weight": (16,)}
                for n in ("input", "post_attention")
            },
            **{f"model.layers.0.self_attn.{n}_proj": {"weight": (16, 16)} for n in "qo"},
            **{f"model.layers.0.self_attn.{n}_proj": {"weight": (8, 16)} for n in "kv"},
            **{
                f"model.layers.0.mlp.{n}_proj": {"weight": (16, 16)} for n in ("gate", "up", "down")
            },
        }
    else:
        parts = {
            "embeddings.word_embeddings": {"weight": (18, 16)},
            "embeddings.LayerNorm": norm,
            "encoder.layer.0.intermediate.dense": linear,
            "encoder.layer.0.output.dense": linear,
            "encoder.layer.0.output.LayerNorm": norm,
        }
    if name == "mpnet":
        parts |= {
            "embeddings.position_embeddings": {"weight": (8, 16)},
            "encoder.relative_attention_bias": {"weight": (32, 2)},
            **{f"encoder.layer.0.attention.attn.{n}": linear for n in "qkvo"},
            "encoder.layer.0.attention.LayerNorm": norm,
        }
    if name == "deberta":
        layer = "encoder.layer.0.attention"
        parts |= {
            "encoder.rel_embeddings": {"weight": (8, 16)},
            "encoder.LayerNorm": norm,
            **{f"{layer}.self.{n}_proj": linear for n in ("query", "key", "value")},
            f"{layer}.output.dense": linear,
            f"{layer}.output.LayerNorm": norm,
        }
        parts = {f"deberta.{part}": values for part, values in parts.items()}
        parts["classifier"] = {"weight": (2, 16), "bias": (2,)}
    return {f"{part}.{key}": shape for part, own in parts.items() for key, shape in own.items()}


def main() -> None:
    random = np.random.RandomState(0)
    for name, config in CONFIGS.items():
        tensors = {
            key: random.uniform(-0.5, 0.5, shape).astype(np.float32)
            for key, shape in shapes(name).items()
        }
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "config.json").write_text(json.dumps(config))
            save_file(tensors, Path(folder) / "model.safetensors")
            dtype = {"llama": "int8", "mpnet": "bfloat16"}.get(name, "float32")
            with trine.load(folder, device="cpu", dtype=dtype, threads=1) as model:
                model.save(HERE / f"{name}.trine")


if __name__ == "__main__":
    main()
