# SPDX-License-Identifier: Apache-2.0
"""Meta's own checkpoints of Llama: ``params.json`` beside ``consolidated.00.pth``, .01, and so on.

The configuration comes out as transformers' config.json would have it, tensors under transformers'
names. Meta turns neighbouring columns of a head where transformers turns its halves, so that the
rows of q and k, and of their biases, lie in another order; the store puts them in order.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trine._core import ModelError, WeightStore
from trine.files import field, read_json
from trine.meta_tokenizer import MetaTokenizer
from trine.tokenizer_files import TokenizerFiles

if TYPE_CHECKING:
    from pathlib import Path

    from trine.tokenizer_files import TokenizerSource

_TOP = {
    "tok_embeddings": "model.embed_tokens",
    "norm": "model.norm",
    "output": "lm_head",
}
_LAYER = {
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w3": "mlp.up_proj",
    "feed_forward.w2": "mlp.down_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_BACK = {hf: meta for meta, hf in (_TOP | _LAYER).items()}
_LAYER_NAME = re.compile(r"layers\.(\d+)\.(.+)")
_ROPE_FREQS = re.compile(r"rope\.freqs|layers\.\d+\.attention\.inner_attention\.rope\.freqs")

# How model-parallel shards cut a module's weight: rows, or columns. Biases are cut where outputs
# are. Token embeddings are cut by columns in Llama 1 and 2 and by rows from Llama 3 on.
_BY_ROWS = {"output", "attention.wq", "attention.wk", "attention.wv"}
_BY_ROWS |= {"feed_forward.w1", "feed_forward.w3"}
_BY_COLUMNS = {"attention.wo", "feed_forward.w2"}

# Fields of params.json that some forks add, and what they are in config.json.
_EXTRA = {
    "head_dim": int,
    "tie_word_embeddings": bool,
    "embedding_multiplier": float,
    "attention_multiplier": float,
    "residual_multiplier": float,
    "logits_scaling": float,
}
_MULTIPLIERS = tuple(_EXTRA)[2:]


@dataclass(frozen=True)
class MetaModel:
    """A Meta folder, read.

    Attributes
    ----------
    folder : Path
    shards : list of Path
        consolidated.*.pth, in order.
    config : dict
        config.json where one lies beside, or what it would say.
    store : WeightStore
        The tensors under transformers' names, with rows in its order.
    notes : list of str
        What the files do not say, and was assumed.
    """

    folder: Path
    shards: list[Path]
    config: dict[str, Any]
    store: WeightStore
    notes: list[str]


def find_shards(folder: Path) -> list[Path]:
    """Return a folder's shards in order; none where it is no Meta folder."""
    if not (folder / "params.json").is_file():
        return []
    return sorted(p for p in folder.glob("consolidated.*.pth") if p.suffixes[-2][1:].isdecimal())


def read(folder: Path) -> MetaModel:
    """Read a folder.

    Raises
    ------
    ModelError
        A missing shard, a broken file, a field that is missing or makes no sense, tensors that
        don't fit each other: names the file and the field or tensor.
    """
    shards = find_shards(folder)
    if not shards:
        raise ModelError(f"{folder}: no params.json with consolidated.00.pth")
    for index, path in enumerate(shards):
        if path.suffixes[-2] != f".{index:02}":
            raise ModelError(f"{folder}: consolidated.{index:02}.pth is missing")
    first = WeightStore([(shards[0], "")])
    shapes = {name: first.shape(name) for name in first.names()}
    notes: list[str] = []
    if (folder / "config.json").is_file():
        config = read_json(folder / "config.json")
    else:
        config = read_config(folder / "params.json", shapes, len(shards), notes)
    names = names_of(shapes, config, folder / "params.json", len(shards))
    store = WeightStore.open_meta(shards, names)
    if "tie_word_embeddings" not in config:
        config["tie_word_embeddings"] = is_tied(store)
    return MetaModel(folder, shards, config, store, notes)


def tokenizer_of(model: MetaModel, usual: int | None) -> tuple[dict[str, Any], TokenizerSource]:
    """Return the folder's tokenizer, and the configuration with the ids of its special tokens."""
    folder, config = model.folder, model.config
    if (folder / "tokenizer.json").is_file():
        return config, TokenizerFiles(folder, config, usual=usual)
    limit = usual or int(config["max_position_embeddings"])
    path = folder / "tokenizer.model"
    own = MetaTokenizer(path, vocab_size=config["vocab_size"], limit=limit)
    return own.ids() | config, own


def is_tied(store: WeightStore) -> bool:
    """Whether the head's table is that of the tokens: Meta's layout names it twice."""
    head = "lm_head.weight"
    return head not in store.names() or store.same(head, "model.embed_tokens.weight")


def to_hf(name: str) -> str | None:
    """Return transformers' name of a tensor of Meta's; None for one that has none there."""
    module, _, kind = name.rpartition(".")
    if kind not in ("weight", "bias"):
        return None
    if module in _TOP:
        return f"{_TOP[module]}.{kind}"
    found = _LAYER_NAME.fullmatch(module)
    if found is None or found[2] not in _LAYER:
        return None
    return f"model.layers.{found[1]}.{_LAYER[found[2]]}.{kind}"


def to_meta(name: str) -> str | None:
    """Return Meta's name of a tensor of transformers'; None for one that has none there."""
    module, _, kind = name.rpartition(".")
    if kind not in ("weight", "bias"):
        return None
    if module in _BACK:
        return f"{_BACK[module]}.{kind}"
    found = _LAYER_NAME.fullmatch(module.removeprefix("model."))
    if found is None or found[2] not in _BACK:
        return None
    return f"layers.{found[1]}.{_BACK[found[2]]}.{kind}"


def turned_heads(name: str, config: dict[str, Any]) -> int:
    """Return how many heads the rows of this tensor of transformers' turn in; 0 for others."""
    module = name.rpartition(".")[0]
    heads = config["num_attention_heads"]
    if module.endswith("self_attn.q_proj"):
        return int(heads)
    if module.endswith("self_attn.k_proj"):
        return int(config.get("num_key_value_heads") or heads)
    return 0


def names_of(
    shapes: dict[str, tuple[int, ...]], config: dict[str, Any], path: Path, shards: int
) -> list[tuple[str, str, int, int]]:
    """Return for each tensor its name in transformers, its turned heads, and how shards cut it."""
    names = []
    for stored, shape in shapes.items():
        name = to_hf(stored)
        if name is None:
            if _ROPE_FREQS.fullmatch(stored):  # computed from the configuration
                continue
            raise ModelError(f"{path.parent}: tensor {stored!r} is none of Llama's")
        cut = -1 if shards == 1 else _cut(stored, shape, config)
        names.append((stored, name, turned_heads(name, config), cut))
    return names


def _cut(stored: str, shape: tuple[int, ...], config: dict[str, Any]) -> int:
    module, _, kind = stored.rpartition(".")
    found = _LAYER_NAME.fullmatch(module)
    module = found[2] if found else module
    if module == "tok_embeddings":
        return 0 if shape[-1] == config["hidden_size"] else 1
    if module in _BY_ROWS:
        return 0
    return 1 if module in _BY_COLUMNS and kind == "weight" else -1


def read_config(
    path: Path, shapes: dict[str, tuple[int, ...]], shards: int, notes: list[str]
) -> dict[str, Any]:
    """Return what config.json would say, from params.json and the first shard's shapes."""
    params = read_json(path)
    inside = params.get("model")
    if isinstance(inside, dict):
        params = inside
    hidden, heads = _count(params, "dim", path), _count(params, "n_heads", path)
    table = _shape(shapes, "tok_embeddings.weight", path)
    gate = _shape(shapes, "layers.0.feed_forward.w1.weight", path)
    eps = float(field(params, "norm_eps", float, path, 1e-5))
    config: dict[str, Any] = {
        "vocab_size": table[0] if table[1] != hidden else table[0] * shards,
        "hidden_size": hidden,
        "intermediate_size": gate[0] * shards,
        "num_hidden_layers": _count(params, "n_layers", path),
        "num_attention_heads": heads,
        "num_key_value_heads": _count(params, "n_kv_heads", path, heads),
        "rms_norm_eps": eps,
        "hidden_act": "silu",
        "attention_bias": _any_bias(shapes, "attention"),
        "mlp_bias": _any_bias(shapes, "feed_forward"),
    }
    for name, kind in _EXTRA.items():
        value = field(params, name, int if kind is int else object, path)
        if value is not None:
            config[name] = value
    granite = any(name in config for name in _MULTIPLIERS)
    config["architectures"] = ["GraniteForCausalLM" if granite else "LlamaForCausalLM"]
    config["model_type"] = "granite" if granite else "llama"
    config |= _positions(params, path, hidden, eps, notes)
    return config


def _positions(
    params: dict[str, Any], path: Path, hidden: int, eps: float, notes: list[str]
) -> dict[str, Any]:
    """Return rotary parameters, and the length that the model was made for."""
    theta = params.get("rope_theta", 10000.0)
    if not isinstance(theta, int | float) or isinstance(theta, bool):
        raise ModelError(f"{path}: rope_theta is {theta!r}, expected a number")
    rope: dict[str, Any] = {"rope_type": "default"}
    length = 4096 if eps >= 1e-5 else 2048  # Llama 2 and 1, which the file doesn't tell apart
    if theta >= 500000:
        length = 8192 if theta == 500000 else 16384  # Llama 3, Code Llama
    scaling = field(params, "rope_scaling", dict, path)
    if scaling is not None:
        rope |= {"rope_type": "llama3"} | scaling
    elif field(params, "use_scaled_rope", bool, path, False):
        factor = field(params, "rope_scaling_factor", object, path)
        if factor is None:
            # Published configurations of Llama 3.2's 1B and 3B have 32, those of Llama 3.1 have 8.
            factor = 32.0 if hidden <= 3072 else 8.0
            notes.append(
                f"params.json has use_scaled_rope without rope_scaling_factor: {factor:g} taken, "
                f"as published for {'Llama 3.2' if factor == 32 else 'Llama 3.1'}"
            )
        rope |= {
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": 1.0,
            "high_freq_factor": params.get("rope_high_freq_factor") or 4.0,
            "original_max_position_embeddings": 8192,
        }
        length = 131072
    return {
        "max_position_embeddings": _count(params, "max_seq_len", path, length),
        "rope_theta": float(theta),
        "rope_parameters": rope | {"rope_theta": float(theta)},
    }


def _count(params: dict[str, Any], name: str, path: Path, default: int | None = None) -> int:
    value = field(params, name, int, path, default)
    if value is None or value < 1:
        raise ModelError(f"{path}: {name} is {value!r}, expected at least 1")
    return int(value)


def _shape(shapes: dict[str, tuple[int, ...]], name: str, path: Path) -> tuple[int, ...]:
    shape = shapes.get(name, ())
    if len(shape) != 2:
        raise ModelError(f"{path.parent}: tensor {name!r} is no matrix: {shape}")
    return shape


def _any_bias(shapes: dict[str, tuple[int, ...]], module: str) -> bool:
    return any(n.startswith(f"layers.0.{module}.") and n.endswith(".bias") for n in shapes)


def params_of(config: dict[str, Any], intermediate: int, vocab: int) -> dict[str, Any]:
    """Return what params.json says of this config.json.

    Raises
    ------
    ModelError
        An activation other than SiLU, for which Meta's layout has no field.
    """
    from trine.models import rope
    from trine.models.config import read as read_fields
    from trine.models.llama import Config

    c = read_fields(Config, config)
    if c.hidden_act not in ("silu", "swish"):
        raise ModelError(f"hidden_act is {c.hidden_act!r}; Meta's layout knows silu alone")
    params: dict[str, Any] = {
        "dim": c.hidden_size,
        "n_layers": c.num_hidden_layers,
        "n_heads": c.num_attention_heads,
        "n_kv_heads": c.kv_heads,
        "vocab_size": vocab,
        **_feed_forward(c.hidden_size, intermediate),
        "norm_eps": c.rms_norm_eps,
    }
    fields = rope.parameters(config)
    params["rope_theta"] = fields.pop("rope_theta")
    kind = fields.pop("rope_type")
    fields.pop("type", None)
    llama3 = {"low_freq_factor": 1.0, "original_max_position_embeddings": 8192}
    if kind == "llama3" and llama3.items() <= fields.items():
        params["use_scaled_rope"] = True
        params["rope_scaling_factor"] = fields["factor"]
        params["rope_high_freq_factor"] = fields.get("high_freq_factor")
    elif kind != "default":
        params["rope_scaling"] = {"rope_type": kind, **fields}
    if c.head_size * c.num_attention_heads != c.hidden_size:
        params["head_dim"] = c.head_size
    params["tie_word_embeddings"] = c.tie_word_embeddings
    if config.get("model_type") == "granite":
        params |= {name: getattr(c, name) for name in _MULTIPLIERS}
    return params


def _feed_forward(hidden: int, intermediate: int) -> dict[str, Any]:
    """Return fields from which Meta's code computes this intermediate size."""
    usual = int(8 * hidden / 3)
    multiple = next(m for m in (256, 128, 64, 32, 16, 8, 4, 2, 1) if intermediate % m == 0)

    def computed(factor: float) -> int:
        return -(-int(factor * usual) // multiple) * multiple

    if computed(1) == intermediate:
        return {"multiple_of": multiple}
    factors = (intermediate / usual, (intermediate + 0.5) / usual)
    factor = next(f for f in factors if computed(f) == intermediate)
    return {"multiple_of": multiple, "ffn_dim_multiplier": factor}
