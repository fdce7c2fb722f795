# SPDX-License-Identifier: Apache-2.0
"""GGUF files: one file with configuration, vocabulary and weights.

The weights stay where they are, mapped; their names and the configuration become those of the
Hugging Face checkpoint that the file was converted from, so that model files know one spelling.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from trine import _core
from trine._core import ModelError, WeightStore
from trine.gguf_tokenizer import GgufTokenizer

if TYPE_CHECKING:
    import os

T = TypeVar("T", int, float, str, bool)

_ARCHITECTURES = {"llama": "LlamaForCausalLM", "granite": "GraniteForCausalLM"}

# Where each module of a layer lies in transformers' models. llama.cpp's converter interleaves the
# rows of q and k of both architectures.
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_TOP = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_ROPE_FACTORS = "rope_freqs.weight"

# Granite's multipliers, by the keys of GGUF.
_MULTIPLIERS = {
    "attention.scale": "attention_multiplier",
    "embedding_scale": "embedding_multiplier",
    "residual_scale": "residual_multiplier",
    "logit_scale": "logits_scaling",
}


class Metadata:
    """The keys of a file, typed: an error names the file and the key."""

    def __init__(self, path: Path, values: dict[str, Any]) -> None:
        self.path, self.values = path, values

    def fail(self, key: str, what: str) -> ModelError:
        """Return the error about a key."""
        return ModelError(f"{self.path}: {key}: {what}")

    def get(self, key: str, kind: type[T], default: T | None = None) -> T | None:
        """Return a value of a type, the default without one. An int will do for a float."""
        value = self.values.get(key)
        if value is None:
            return default
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.fail(key, f"is {_shown(value)}, expected {kind.__name__}")
        if isinstance(value, float):
            if not math.isfinite(value):
                raise self.fail(key, f"is {value}")
            short = np.float32(value)
            if short == value:  # stored as float32: 1e-05 and not 9.999999747378752e-06
                return kind(str(short))
        return value

    def need(self, key: str, kind: type[T]) -> T:
        """Return a value that must be there."""
        value = self.get(key, kind)
        if value is None:
            raise self.fail(key, "is missing")
        return value

    def count(self, key: str, default: int | None = None) -> int:
        """Return a number of at least 1."""
        value = self.need(key, int) if default is None else self.get(key, int, default)
        if value is None or value < 1:
            raise self.fail(key, f"is {value}, expected at least 1")
        return value

    def items(self, key: str, kind: type[T]) -> list[T] | None:
        """Return an array of one type, None without one."""
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, list):
            raise self.fail(key, f"is {_shown(value)}, expected an array")
        for index, item in enumerate(value):
            if type(item) is not kind:
                raise self.fail(
                    key, f"item {index} is {_shown(item)}, expected {kind.__name__}, in UTF-8"
                )
        return cast("list[T]", value)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:80] + "..."


@dataclass(frozen=True)
class GgufModel:
    """A GGUF file, read.

    Attributes
    ----------
    path : Path
    config : dict
        What config.json would say. ``rope_parameters`` of the type ``"factors"`` lists in
        ``factors`` what each frequency is divided by, for files that store that alone.
    store : WeightStore
        The tensors under transformers' names; ones that have none there keep their own.
    tokenizer : GgufTokenizer
        Reads the vocabulary at first use.
    """

    path: Path
    config: dict[str, Any]
    store: WeightStore
    tokenizer: GgufTokenizer


def read(path: str | os.PathLike[str]) -> GgufModel:
    """Read a file of the architectures llama and granite.

    Raises
    ------
    ModelError
        A broken file, another architecture, or a key that is missing or makes no sense: names the
        file and the key or tensor.
    """
    path = Path(path)
    values, tensors = _core.read_gguf(path)
    metadata = Metadata(path, values)
    shapes = {name: shape for name, _, shape in tensors}
    config = read_config(metadata, shapes)
    store = WeightStore.open_gguf(path, names_of(shapes, config))
    if _ROPE_FACTORS in shapes:
        config["rope_parameters"] = _factors(metadata, config, store)
    tokenizer = GgufTokenizer(
        metadata, vocab_size=config["vocab_size"], limit=config["max_position_embeddings"]
    )
    return GgufModel(path, config, store, tokenizer)


def names_of(
    shapes: dict[str, tuple[int, ...]], config: dict[str, Any]
) -> list[tuple[str, str, int]]:
    """Return what each tensor is called in transformers, and of how many heads its rows are mixed.

    Tensors without a name there are left out.
    """
    heads = {
        "attn_q": config["num_attention_heads"],
        "attn_k": config["num_key_value_heads"],
    }
    names = []
    for stored in shapes:
        module, _, kind = stored.rpartition(".")
        if kind not in ("weight", "bias"):
            continue
        if module in _TOP:
            names.append((stored, f"{_TOP[module]}.{kind}", 0))
            continue
        prefix, _, rest = module.partition(".")
        layer, _, name = rest.partition(".")
        if prefix == "blk" and layer.isdecimal() and name in _LAYER:
            names.append(
                (stored, f"model.layers.{layer}.{_LAYER[name]}.{kind}", heads.get(name, 0))
            )
    return names


def read_config(metadata: Metadata, shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    """Return the configuration as config.json would have it, without `rope_freqs`."""
    name = metadata.need("general.architecture", str)
    if name not in _ARCHITECTURES:
        known = ", ".join(_ARCHITECTURES)
        raise metadata.fail("general.architecture", f"is {name!r}; known are {known}")
    if (parts := metadata.get("split.count", int, 1)) != 1:
        raise metadata.fail(
            "split.count", f"the model is split over {parts} files; llama-gguf-split merges them"
        )
    if metadata.get(f"{name}.expert_count", int, 0):
        raise metadata.fail(f"{name}.expert_count", "mixtures of experts are not read")
    embedding = shapes.get("token_embd.weight", ())
    if len(embedding) != 2:
        raise ModelError(f"{metadata.path}: tensor 'token_embd.weight' is no table: {embedding}")
    heads = _heads(metadata, f"{name}.attention.head_count")
    hidden = metadata.count(f"{name}.embedding_length")
    config: dict[str, Any] = {
        "architectures": [_ARCHITECTURES[name]],
        "model_type": name,
        "vocab_size": embedding[0],
        "hidden_size": hidden,
        "intermediate_size": metadata.count(f"{name}.feed_forward_length"),
        "num_hidden_layers": metadata.count(f"{name}.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": _heads(metadata, f"{name}.attention.head_count_kv", heads),
        "head_dim": _head_dim(metadata, name, hidden, heads),
        "max_position_embeddings": metadata.count(f"{name}.context_length"),
        "rms_norm_eps": metadata.need(f"{name}.attention.layer_norm_rms_epsilon", float),
        "hidden_act": "silu",
        "attention_bias": _any_bias(shapes, "attn_q", "attn_k", "attn_v", "attn_output"),
        "mlp_bias": _any_bias(shapes, "ffn_gate", "ffn_up", "ffn_down"),
        "tie_word_embeddings": "output.weight" not in shapes,
    }
    config |= _special_ids(metadata, embedding[0])
    config |= _rope(metadata, name)
    if name == "granite":
        # ggml takes 0 for "not given", and then scales scores as every Llama does.
        config["attention_multiplier"] = config["head_dim"] ** -0.5
        for key, field in _MULTIPLIERS.items():
            if value := metadata.get(f"{name}.{key}", float):
                config[field] = value
    if (window := metadata.get(f"{name}.attention.sliding_window", int)) is not None:
        config["sliding_window"] = window
    return config


def _heads(metadata: Metadata, key: str, default: int | None = None) -> int:
    """Return a number of heads; some files list it for each layer."""
    value = metadata.values.get(key)
    if not isinstance(value, list):
        return metadata.count(key, default)
    counts = set(metadata.items(key, int) or [])
    if len(counts) != 1:
        raise metadata.fail(key, "layers of different numbers of heads are not read")
    if (count := counts.pop()) < 1:
        raise metadata.fail(key, f"is {count}, expected at least 1")
    return count


def _head_dim(metadata: Metadata, name: str, hidden: int, heads: int) -> int:
    key = f"{name}.attention.key_length"
    size = metadata.count(key, hidden // heads or 1)
    for other in (f"{name}.attention.value_length", f"{name}.rope.dimension_count"):
        if metadata.count(other, size) != size:
            raise metadata.fail(other, f"is not the {size} dimensions of a head's keys")
    return size


def _any_bias(shapes: dict[str, tuple[int, ...]], *modules: str) -> bool:
    return any(f"blk.0.{module}.bias" in shapes for module in modules)


def _special_ids(metadata: Metadata, vocab_size: int) -> dict[str, Any]:
    """Return bos, eos and pad ids; a list for eos where a turn may end in other tokens, too."""

    def read_id(role: str) -> int | None:
        key = f"tokenizer.ggml.{role}_token_id"
        value = metadata.get(key, int)
        if value is not None and not 0 <= value < vocab_size:
            raise metadata.fail(key, f"is {value}, the vocabulary has {vocab_size} tokens")
        return value

    ends = [read_id(role) for role in ("eos", "eot", "eom")]
    eos = list(dict.fromkeys(end for end in ends if end is not None))
    ids = {
        "bos_token_id": read_id("bos"),
        "eos_token_id": eos[0] if len(eos) == 1 else eos or None,
        "pad_token_id": read_id("padding"),
    }
    return {name: value for name, value in ids.items() if value is not None}


def _rope(metadata: Metadata, name: str) -> dict[str, Any]:
    """Return the base of the rotary embedding and how it is stretched."""
    theta = metadata.get(f"{name}.rope.freq_base", float, 10000.0)
    parameters: dict[str, Any] = {"rope_type": "default", "rope_theta": theta}
    prefix = f"{name}.rope.scaling"
    legacy = metadata.get(f"{name}.rope.scale_linear", float)
    kind = metadata.get(f"{prefix}.type", str, "none" if legacy is None else "linear")
    factor = metadata.get(f"{prefix}.factor", float, legacy)
    if kind == "none" or factor == 0:  # 0: converters' way of saying nothing
        return {"rope_theta": theta, "rope_parameters": parameters}
    if kind not in ("linear", "yarn"):
        raise metadata.fail(f"{prefix}.type", f"is {kind!r}; none, linear and yarn are read")
    if factor is None or factor < 0:
        raise metadata.fail(f"{prefix}.factor", f"is {factor}")
    parameters |= {"rope_type": kind, "factor": factor}
    if kind == "yarn":
        if (original := metadata.get(f"{prefix}.original_context_length", int)) is not None:
            parameters["original_max_position_embeddings"] = original
        for key in ("beta_fast", "beta_slow"):
            if (beta := metadata.get(f"{prefix}.yarn_{key}", float)) is not None:
                parameters[key] = beta
        if (scale := metadata.get(f"{prefix}.attn_factor", float)) is not None:
            # ggml multiplies what transformers' attention_factor replaces.
            parameters["attention_factor"] = scale * (0.1 * math.log(factor) + 1.0)
    return {"rope_theta": theta, "rope_parameters": parameters}


def _factors(metadata: Metadata, config: dict[str, Any], store: WeightStore) -> dict[str, Any]:
    """Return rope_freqs.weight, a divisor per frequency: what converters make of llama3."""
    shape, half = store.shape(_ROPE_FACTORS), config["head_dim"] // 2
    if shape != (half,):
        raise ModelError(
            f"{metadata.path}: tensor {_ROPE_FACTORS!r} is {shape}, expected {(half,)}"
        )
    if config["rope_parameters"]["rope_type"] != "default":
        raise ModelError(
            f"{metadata.path}: tensor {_ROPE_FACTORS!r} beside a rope.scaling.type is not read"
        )
    return {
        "rope_type": "factors",
        "rope_theta": config["rope_theta"],
        "factors": store.floats(_ROPE_FACTORS).tolist(),
    }
