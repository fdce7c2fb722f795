# SPDX-License-Identifier: Apache-2.0
"""What a sentence-transformers folder says beyond the transformer: modules, prompts, settings."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import Any

from trine._core import ModelError
from trine.files import field, read_json, read_json_value, read_optional_json

Module = dict[str, Any]

POOLING_MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")

# One flag a mode, as releases before 5.2 wrote it; the order is that of concatenation.
_POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}

_ACTIVATIONS = {
    "torch.nn.modules.activation.Tanh": "tanh",
    "torch.nn.modules.activation.ReLU": "relu",
    "torch.nn.modules.activation.GELU": "gelu",
    "torch.nn.modules.activation.SiLU": "silu",
    "torch.nn.modules.activation.Sigmoid": "sigmoid",
    "torch.nn.modules.linear.Identity": "identity",
}

_SETTINGS_FILES = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)

SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")

_LAYER_NORM_EPS = 1e-5  # torch's default; sentence-transformers has no field for it


@dataclass(frozen=True)
class SentenceConfig:
    """A folder's modules.json and the files beside it.

    Attributes
    ----------
    transformer : str
        Folder of the Transformer module, relative: usually empty.
    modules : list of dict
        The chain after it, as `trine.models.build` takes it.
    folders : list of str
        Those of all modules, relative.
    weights : list of str
        Folders of modules that have weights; their tensors are named ``<folder>.<tensor>``.
    max_seq_length, lowercase
        From sentence_bert_config.json.
    prompts, default_prompt_name, similarity, truncate_dim
        From config_sentence_transformers.json.
    """

    transformer: str = ""
    modules: list[Module] = dataclass_field(
        default_factory=lambda: [{"type": "pooling", "modes": ["mean"], "include_prompt": True}]
    )
    folders: list[str] = dataclass_field(default_factory=list)
    weights: list[str] = dataclass_field(default_factory=list)
    max_seq_length: int | None = None
    lowercase: bool = False
    prompts: dict[str, str] = dataclass_field(default_factory=lambda: {"query": "", "document": ""})
    default_prompt_name: str | None = None
    similarity: str = "cosine"
    truncate_dim: int | None = None


def read(folder: Path) -> SentenceConfig:
    """Read a folder with modules.json.

    Raises
    ------
    ModelError
        A file that is broken, or a module, pooling mode or activation that isn't known.
    """
    path = folder / "modules.json"
    listing = read_json_value(path)
    if not isinstance(listing, list) or not all(isinstance(m, dict) for m in listing):
        raise ModelError(f"{path}: expected a list of objects")
    kinds = [(_kind(m, path), _module_folder(m, path)) for m in listing]
    if not kinds or kinds[0][0] != "Transformer":
        raise ModelError(f"{path}: the first module must be a Transformer")
    modules: list[Module] = []
    weights: list[str] = []
    for kind, name in kinds[1:]:
        module = _READERS[kind](folder, name) if kind in _READERS else None
        if module is None:
            raise ModelError(f"{path}: a {kind} module is only known in first place")
        if module["type"] == "dropout":  # does nothing outside training
            continue
        if bool(modules) == (module["type"] == "pooling"):
            raise ModelError(f"{path}: expected one Pooling module, right after the Transformer")
        modules.append(module)
        weights += [name] if "scope" in module else []
    if not modules:
        raise ModelError(f"{path}: there is no Pooling module")
    return SentenceConfig(
        transformer=kinds[0][1],
        modules=modules,
        folders=[name for _, name in kinds],
        weights=weights,
        **_transformer_settings(folder / kinds[0][1]),
        **_model_settings(folder / "config_sentence_transformers.json"),
    )


def _kind(module: dict[str, Any], path: Path) -> str:
    name = field(module, "type", str, path, "")
    package, _, kind = name.rpartition(".")
    known = kind == "Transformer" or kind in _READERS
    if not known or package.partition(".")[0] != "sentence_transformers":
        names = ", ".join(["Transformer", *_READERS])
        raise ModelError(f"{path}: module type {name!r} is not known; known are {names}")
    return str(kind)


def _module_folder(module: dict[str, Any], path: Path) -> str:
    name: str = field(module, "path", str, path, "")
    if Path(name).is_absolute() or ".." in Path(name).parts or "\\" in name:
        raise ModelError(f"{path}: module path {name!r} leads out of the folder")
    return "" if name == "." else name


def _pooling(folder: Path, name: str) -> Module:
    path = folder / name / "config.json"
    config = read_json(path)
    modes = config.get("pooling_mode")
    if modes is None:
        modes = [mode for flag, mode in _POOLING_FLAGS.items() if config.get(flag)] or ["mean"]
    modes = [modes] if isinstance(modes, str) else modes
    if not isinstance(modes, list) or not modes or not set(modes) <= set(POOLING_MODES):
        known = ", ".join(POOLING_MODES)
        raise ModelError(f"{path}: pooling_mode is {modes!r}; known modes are {known}")
    include = field(config, "include_prompt", bool, path, default=True)
    return {"type": "pooling", "modes": modes, "include_prompt": include}


def _dense(folder: Path, name: str) -> Module:
    path = folder / name / "config.json"
    config = read_json(path)
    _sentence_only(config, path)
    activation = field(config, "activation_function", str, path, "torch.nn.modules.activation.Tanh")
    if activation not in _ACTIVATIONS:
        known = ", ".join(_ACTIVATIONS)
        raise ModelError(f"{path}: activation_function {activation!r} is not known; known: {known}")
    module = {
        "type": "dense",
        "scope": f"{name}.linear",
        "bias": field(config, "bias", bool, path, default=True),
        "activation": _ACTIVATIONS[activation],
    }
    if field(config, "use_residual", bool, path, default=False):
        same = config.get("in_features") == config.get("out_features")
        module["residual"] = "identity" if same else f"{name}.residual"
    return module


def _layer_norm(_folder: Path, name: str) -> Module:
    return {"type": "layer_norm", "scope": f"{name}.norm", "eps": _LAYER_NORM_EPS}


def _normalize(folder: Path, name: str) -> Module:
    path = folder / name / "config.json"  # absent before version 5
    if name:
        _sentence_only(read_optional_json(path), path)
    return {"type": "normalize"}


def _dropout(_folder: Path, _name: str) -> Module:
    return {"type": "dropout"}


_READERS = {
    "Pooling": _pooling,
    "Dense": _dense,
    "LayerNorm": _layer_norm,
    "Normalize": _normalize,
    "Dropout": _dropout,
}


def _sentence_only(config: dict[str, Any], path: Path) -> None:
    for name in ("module_input_name", "module_output_name"):
        value = config.get(name)
        if value not in (None, "sentence_embedding"):
            raise ModelError(f"{path}: {name} is {value!r}; only 'sentence_embedding' is known")


def _transformer_settings(folder: Path) -> dict[str, Any]:
    path = next((folder / f for f in _SETTINGS_FILES if (folder / f).is_file()), None)
    if path is None:
        return {}
    config = read_json(path)
    task = config.get("transformer_task")
    if task not in (None, "feature-extraction"):
        raise ModelError(f"{path}: transformer_task {task!r}; only 'feature-extraction' is known")
    return {
        "max_seq_length": field(config, "max_seq_length", int, path),
        "lowercase": field(config, "do_lower_case", bool, path, default=False),
    }


def _positive(config: dict[str, Any], name: str, path: Path) -> int | None:
    value: int | None = field(config, name, int, path)
    if value is not None and value < 1:
        raise ModelError(f"{path}: {name} is {value}, expected at least 1")
    return value


def _model_settings(path: Path) -> dict[str, Any]:
    config = read_optional_json(path)
    # sentence-transformers gives every model these two, empty unless the file says otherwise.
    prompts = {"query": "", "document": ""}
    for name, text in field(config, "prompts", dict, path, {}).items():
        if text is not None and not isinstance(text, str):
            raise ModelError(f"{path}: prompts[{name!r}] is {text!r}, expected a text")
        prompts[name] = text or ""
    default = field(config, "default_prompt_name", str, path)
    if default is not None and default not in prompts:
        raise ModelError(f"{path}: default_prompt_name {default!r} is not among {list(prompts)}")
    similarity = field(config, "similarity_fn_name", str, path, "cosine")
    return {
        "prompts": prompts,
        "default_prompt_name": default,
        "similarity": similarity if similarity in SIMILARITIES else "cosine",
        "truncate_dim": _positive(config, "truncate_dim", path),
    }
