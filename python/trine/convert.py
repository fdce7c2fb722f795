# SPDX-License-Identifier: Apache-2.0
"""Llama between Hugging Face's layout and Meta's, tensor bytes unchanged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from trine import meta
from trine._core import InputError, ModelError, WeightStore
from trine.weight_writers import Stored, write_safetensors, write_torch

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

Layout = Literal["hf", "meta"]

# What a folder has beside its weights: taken along as it is.
_SMALL_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
)
_HEAD, _WORDS = "lm_head.weight", "model.embed_tokens.weight"
_OLD_FREQUENCIES = ".rotary_emb.inv_freq"


def convert(
    source: str | os.PathLike[str], target: str | os.PathLike[str], *, to: Layout
) -> list[str]:
    """Write a Llama or Granite in the other layout.

    Rows of q and k, and of their biases, go into the order of the other rotary embedding; all else
    is renamed. A tied table that Hugging Face's file has once is in Meta's file under both names,
    stored once, and comes back once. The small files are copied; ``params.json`` is written for
    Meta, ``config.json`` for Hugging Face where there is none. So a folder with one
    model.safetensors comes back from Meta's layout as it was, byte for byte.

    Parameters
    ----------
    source, target : path
        Folders; the target must be empty or absent.
    to : {"hf", "meta"}
        ``"meta"`` writes consolidated.00.pth, ``"hf"`` model.safetensors.

    Returns
    -------
    notes : list of str
        What was assumed or left out.

    Raises
    ------
    ModelError
        A broken source, one that is no Llama, or one that the layout cannot express.
    InputError
        A target that is not empty.
    """
    folder, place = Path(source).expanduser(), Path(target).expanduser()
    if to not in ("hf", "meta"):
        raise InputError(f"to is {to!r}, expected 'hf' or 'meta'")
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise InputError(f"{place}: is there already, and not empty")
    return _to_meta(folder, place) if to == "meta" else _to_hf(folder, place)


def _to_meta(folder: Path, place: Path) -> list[str]:
    from trine.models import ARCHITECTURES
    from trine.sources import choose_architecture, read_folder

    files = read_folder(folder)
    config, path = files.config, files.encoder / "config.json"
    _, architecture = choose_architecture(
        config, path, "generate", modules=False, known=ARCHITECTURES
    )
    if architecture.family not in ("llama", "granite"):
        raise ModelError(f"{path}: Meta's layout is for Llama, not for {architecture.family!r}")
    store = WeightStore(files.weights[:1])
    notes: list[str] = []
    tensors = []
    for name in store.names():
        renamed = meta.to_meta(name)
        if renamed is not None:
            heads = meta.turned_heads(name, config)
            tensors.append(_stored(store, name, renamed, _interleaved(store, name, heads)))
        elif name.endswith(_OLD_FREQUENCIES):
            notes.append(f"{name} left out: it is computed from the configuration")
        else:
            raise ModelError(f"{folder}: tensor {name!r} has no place in Meta's layout")
    tensors.sort(key=lambda t: _place_in_meta(t.name))
    words = next((t for t in tensors if t.name == "tok_embeddings.weight"), None)
    gate = next((t for t in tensors if t.name == "layers.0.feed_forward.w1.weight"), None)
    if words is None or gate is None:
        raise ModelError(f"{folder}: no {_WORDS} or no gate_proj in layer 0")
    if not any(t.name == "output.weight" for t in tensors):
        head = Stored("output.weight", words.dtype, words.shape, words.read, like=words.name)
        tensors.append(head)
    try:
        params = meta.params_of(config, gate.shape[0], words.shape[0])
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    place.mkdir(parents=True, exist_ok=True)
    write_torch(place / "consolidated.00.pth", tensors)
    (place / "params.json").write_text(json.dumps(params, indent=2) + "\n", "utf-8")
    _copy_small_files(files.encoder, place)
    return notes


def _to_hf(folder: Path, place: Path) -> list[str]:
    model = meta.read(folder)
    store, config = model.store, model.config
    own = (folder / "config.json").is_file()
    names = store.names()
    if _HEAD in names and (
        store.share(_HEAD, _WORDS) or (not own and config["tie_word_embeddings"])
    ):
        names.remove(_HEAD)
    tensors = [_stored(store, name, name, _reader(store, name)) for name in names]
    place.mkdir(parents=True, exist_ok=True)
    write_safetensors(place / "model.safetensors", tensors)
    if not own:
        config, _ = meta.tokenizer_of(model, None)
        torch_dtype = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
        config = config | {"torch_dtype": torch_dtype.get(store.dtype(_WORDS))}
        text = json.dumps(config, indent=2, sort_keys=True)
        (place / "config.json").write_text(text + "\n", "utf-8")
    _copy_small_files(folder, place)
    return model.notes


def _stored(store: WeightStore, name: str, renamed: str, read: Callable[[], bytes]) -> Stored:
    return Stored(renamed, store.dtype(name), store.shape(name), read)


def _reader(store: WeightStore, name: str) -> Callable[[], bytes]:
    return lambda: store.read(name)


def _interleaved(store: WeightStore, name: str, heads: int) -> Callable[[], bytes]:
    """Return a reader that moves row i of a head's halves to rows 2 i and 2 i + 1."""
    if not heads:
        return _reader(store, name)
    rows = store.shape(name)[0]
    if rows % (2 * heads):
        raise ModelError(f"tensor {name!r}: {rows} rows are not of {heads} heads with pairs")

    def read() -> bytes:
        halves = np.frombuffer(store.read(name), np.uint8).reshape(heads, 2, rows // heads // 2, -1)
        return bytes(halves.transpose(0, 2, 1, 3).tobytes())

    return read


def _place_in_meta(name: str) -> tuple[Any, ...]:
    """Return a key that sorts tensors as Meta's files have them: table, layers, norm, head."""
    parts = name.split(".")
    if parts[0] == "layers":
        return (1, int(parts[1]), *parts[2:])
    return (0 if parts[0] == "tok_embeddings" else 2, 0, *parts)


def _copy_small_files(folder: Path, place: Path) -> None:
    for name in _SMALL_FILES:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, place / name)
