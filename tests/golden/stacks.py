# SPDX-License-Identifier: Apache-2.0
"""The sentence-transformers folders that the tests use: a list of module stacks, and a writer.

Every stack sits on the same tiny encoder (`sentence/`), so only the JSON of its modules and a few
seeded weights differ; folders are made when a test runs. Needs numpy alone: the default suite uses
it without torch. `RandomState` is used because numpy froze its streams, unlike `default_rng`'s.
"""

from __future__ import annotations

import json
import shutil
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
BASE = HERE / "sentence"
HIDDEN = 32  # the hidden size of the encoder in BASE

Module = tuple[str, dict[str, Any]]

# Where sentence-transformers 6 and earlier versions say that a module's class lives.
_NEW_PATHS = {
    "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
    "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
    "Dense": "sentence_transformers.base.modules.dense.Dense",
    "LayerNorm": "sentence_transformers.sentence_transformer.modules.layer_norm.LayerNorm",
    "Normalize": "sentence_transformers.base.modules.normalize.Normalize",
}
_LEGACY_FLAGS = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}


@dataclass(frozen=True)
class Stack:
    """One sentence-transformers folder: the modules after the Transformer, and its settings."""

    modules: tuple[Module, ...] = ()
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    max_seq_length: int | None = 24
    legacy: bool = False  # class paths and pooling flags as written before version 5
    plain: bool = False  # no modules.json at all: a bare transformers folder
    truncate_dim: int | None = None
    encode: dict[str, Any] = field(default_factory=dict)  # keywords of `encode` for the golden


def pooling(*modes: str, width: int = HIDDEN, include_prompt: bool = True) -> Module:
    """Return a Pooling module in the current format: a mode's name, or the names of several."""
    mode = modes[0] if len(modes) == 1 else list(modes)
    config = {"embedding_dimension": width, "pooling_mode": mode, "include_prompt": include_prompt}
    return "Pooling", config


def legacy_pooling(*modes: str, width: int = HIDDEN) -> Module:
    """Return a Pooling module as one flag per mode; several modes join in a fixed order."""
    flags = {flag: mode in modes for mode, flag in _LEGACY_FLAGS.items()}
    return "Pooling", {"word_embedding_dimension": width, **flags}


def dense(n_in: int, n_out: int, activation: str, *, bias: bool = True, **more: Any) -> Module:
    """Return a Dense module; `activation` is the dotted name of a torch class."""
    config = {"in_features": n_in, "out_features": n_out, "bias": bias}
    return "Dense", {**config, "activation_function": activation, **more}


def layer_norm(width: int) -> Module:
    """Return a LayerNorm module: its epsilon is 1e-5 whatever the encoder's is."""
    return "LayerNorm", {"dimension": width}


NORMALIZE: Module = ("Normalize", {})
TANH = "torch.nn.modules.activation.Tanh"
GELU = "torch.nn.modules.activation.GELU"
RELU = "torch.nn.modules.activation.ReLU"
SIGMOID = "torch.nn.modules.activation.Sigmoid"
IDENTITY = "torch.nn.modules.linear.Identity"
PROMPTS = {"query": "search for this query: ", "document": ""}

STACKS: dict[str, Stack] = {
    "cls": Stack((legacy_pooling("cls"),), legacy=True),
    "mean": Stack((legacy_pooling("mean"),), legacy=True),
    "max": Stack((pooling("max"),)),
    "mean-sqrt": Stack((pooling("mean_sqrt_len_tokens"),)),
    "weightedmean": Stack((legacy_pooling("weightedmean"),), legacy=True),
    "lasttoken": Stack((pooling("lasttoken"),)),
    # Flags join in the order cls, max, mean, ...; a list joins in its own order.
    "mean-and-max-flags": Stack((legacy_pooling("mean", "max"),), legacy=True),
    "mean-and-cls-list": Stack((pooling("mean", "cls"),)),
    "all-modes": Stack((pooling(*_LEGACY_FLAGS), NORMALIZE)),
    "normalize": Stack((pooling("mean"), NORMALIZE)),
    "normalize-legacy": Stack((legacy_pooling("mean"), NORMALIZE), legacy=True),
    # Prompts: by default, left out of the pooling, named, given as text.
    "prompt-default": Stack((pooling("mean"), NORMALIZE), prompts=PROMPTS, default_prompt="query"),
    "prompt-excluded": Stack(
        (pooling("mean", include_prompt=False),), prompts=PROMPTS, default_prompt="query"
    ),
    "prompt-excluded-weighted": Stack(
        (pooling("weightedmean", "cls", "max", "lasttoken", include_prompt=False),),
        prompts=PROMPTS,
        encode={"prompt_name": "query"},
    ),
    "prompt-text": Stack(
        (pooling("mean"),), prompts=PROMPTS, default_prompt="query", encode={"prompt": "topic: "}
    ),
    "prompt-document": Stack(
        (pooling("mean"),),
        prompts=PROMPTS,
        default_prompt="query",
        encode={"prompt_name": "document"},
    ),
    # Modules after the pooling.
    "dense-tanh": Stack((pooling("mean"), dense(HIDDEN, 24, TANH), NORMALIZE)),
    "dense-identity": Stack(
        (legacy_pooling("mean"), dense(HIDDEN, 20, IDENTITY, bias=False)), legacy=True
    ),
    "dense-gelu-norm": Stack((pooling("cls"), dense(HIDDEN, 40, GELU), layer_norm(40), NORMALIZE)),
    "dense-twice": Stack(
        (pooling("mean", "max"), dense(2 * HIDDEN, 28, RELU), dense(28, 17, SIGMOID, bias=False))
    ),
    "dense-residual": Stack((pooling("mean"), dense(HIDDEN, 24, TANH, use_residual=True))),
    "layer-norm": Stack((pooling("mean"), layer_norm(HIDDEN))),
    # Settings of the folder and of the call.
    "tokenizer-limit": Stack((pooling("mean"),), max_seq_length=None),
    "plain": Stack(plain=True),
    "truncated-folder": Stack((pooling("mean"), NORMALIZE), truncate_dim=12),
    "truncated-call": Stack(
        (pooling("mean"),), encode={"truncate_dim": 10, "normalize_embeddings": True}
    ),
    "normalized-call": Stack((pooling("mean"),), encode={"normalize_embeddings": True}),
    "int8": Stack((pooling("mean"), NORMALIZE), encode={"precision": "int8"}),
    "uint8": Stack((pooling("mean"), NORMALIZE), encode={"precision": "uint8"}),
    "binary": Stack((pooling("mean"), NORMALIZE), encode={"precision": "binary"}),
    "ubinary": Stack(
        (pooling("mean"), NORMALIZE), encode={"precision": "ubinary", "truncate_dim": 20}
    ),
}

TEXTS: tuple[str, ...] = (
    "",
    "a",
    "The committee discussed the annual budget for public parks.",
    "THE COMMITTEE discussed the Annual budget, for public-parks!",
    "Déjà vu: naïve café façades in Zürich cost €12.50 (or £9.99).",
    "北京 is a city; 東京 too.",
    "emoji \U0001f600 and \u200bzero width, tabs\tand\nnew lines",
    "   surrounded by spaces   ",
    "a literal <pad> inside the text",
    "fill the <mask> here and </s> there",
    "antidisestablishmentarianism " + "x" * 120,
    " ".join(["the weather service compared several misleading statistics"] * 60),
)


def write_safetensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """Write float32 tensors as a safetensors file (the package itself is not needed for that)."""
    header: dict[str, Any] = {}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.nbytes
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    body = b"".join(np.ascontiguousarray(t, "<f4").tobytes() for t in tensors.values())
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def _weights(kind: str, config: dict[str, Any], seed: int) -> dict[str, np.ndarray]:
    rng = np.random.RandomState(seed)

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    if kind == "LayerNorm":
        width = config["dimension"]
        return {"norm.weight": 1 + 0.3 * draw(width), "norm.bias": 0.3 * draw(width)}
    if kind != "Dense":
        return {}
    n_in, n_out = config["in_features"], config["out_features"]
    tensors = {"linear.weight": draw(n_out, n_in) / np.float32(np.sqrt(n_in))}
    if config["bias"]:
        tensors["linear.bias"] = 0.3 * draw(n_out)
    if config.get("use_residual") and n_in != n_out:
        tensors["residual.weight"] = draw(n_out, n_in) / np.float32(np.sqrt(n_in))
    return tensors


def write_stack(stack: Stack, folder: Path, *, base: Path = BASE, seed: int = 0) -> Path:
    """Write `stack` on top of a copy of the encoder in `base`; returns `folder`."""
    shutil.copytree(base, folder, dirs_exist_ok=True)
    if stack.plain:
        return folder

    def write(path: str, content: object) -> None:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(json.dumps(content, indent=2))

    listing = []
    for index, (kind, config) in enumerate((("Transformer", {}), *stack.modules)):
        path = f"{index}_{kind}" if index else ""
        class_path = f"sentence_transformers.models.{kind}" if stack.legacy else _NEW_PATHS[kind]
        listing.append({"idx": index, "name": str(index), "path": path, "type": class_path})
        if config:  # Normalize has nothing to say, and old folders lack its directory altogether
            write(f"{path}/config.json", config)
        if tensors := _weights(kind, config, seed + index):
            write_safetensors(folder / path / "model.safetensors", tensors)
    write("modules.json", listing)
    if stack.max_seq_length is not None:
        limit = {"max_seq_length": stack.max_seq_length, "do_lower_case": False}
        write("sentence_bert_config.json", limit)
    settings: dict[str, Any] = {
        "__version__": {"sentence_transformers": "2.0.0" if stack.legacy else "6.2.0"},
        "prompts": stack.prompts,
        "default_prompt_name": stack.default_prompt,
        "similarity_fn_name": "cosine",
    }
    if stack.truncate_dim is not None:
        settings["truncate_dim"] = stack.truncate_dim
    write("config_sentence_transformers.json", settings)
    return folder
