# SPDX-License-Identifier: Apache-2.0
"""From a name to what is to be compiled: weights, configuration and tokenizer."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trine import sentence_transformers
from trine._core import ModelError, WeightStore
from trine.checkpoint import Checkpoint
from trine.files import field, read_json, read_optional_json
from trine.sentence_transformers import SentenceConfig
from trine.tokenizer_files import TokenizerFiles, TokenizerSource, least

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trine.models import Architecture

_READABLE = (
    "a Hugging Face folder (config.json with model.safetensors or pytorch_model.bin, "
    "or shards with an index), a Meta folder (params.json with consolidated.00.pth), a compiled "
    ".trine file or a GGUF file"
)

# In the order of preference.
_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_WEIGHTS_ENDINGS = (
    ".safetensors",
    ".safetensors.index.json",
    ".bin",
    ".bin.index.json",
    ".pt",
    ".pth",
)
_FILE_SUFFIXES = {".safetensors", ".trine", ".gguf", ".bin", ".pt", ".pth", ".json"}


@dataclass(frozen=True)
class Opened:
    """What a source holds: all that compiling it takes."""

    store: WeightStore
    tokenizer: TokenizerSource
    checkpoint: Checkpoint
    modules: Sequence[Mapping[str, Any]] = ()


class Source(ABC):
    """Where a model lies; nothing but small files has been read."""

    root: Path  # what errors name

    @property
    @abstractmethod
    def place(self) -> Path:
        """The folder of config.json, or the one that the file lies in."""

    @property
    @abstractmethod
    def config_file(self) -> Path:
        """The file that says what config.json does."""

    @abstractmethod
    def open(self, name: str, task: str | None) -> Opened:
        """Read it, as what `task` names; `name` is what the caller called it."""

    @abstractmethod
    def weights_files(self) -> list[Path]:
        """Return every file with weights."""

    @abstractmethod
    def folders(self) -> list[Path]:
        """Return the folders whose small files say what the model is."""


@dataclass(frozen=True)
class Folder(Source):
    """What a model's folder holds."""

    root: Path
    encoder: Path  # where config.json and the tokenizer lie
    config: dict[str, Any]
    weights: list[tuple[Path, str]]  # files, each with what goes before its tensors' names
    sentence: SentenceConfig
    has_modules: bool

    @property
    def place(self) -> Path:
        """The folder of config.json."""
        return self.encoder

    @property
    def config_file(self) -> Path:
        """config.json."""
        return self.encoder / "config.json"

    def open(self, name: str, task: str | None) -> Opened:
        """Read it, as what `task` names."""
        architecture, kind = _choose(self.config, self.config_file, task, modules=self.has_modules)
        limit = kind.max_length(self.config)
        tokenizer = TokenizerFiles(
            self.encoder,
            self.config,
            max_seq_length=self.sentence.max_seq_length,
            most=limit,
            usual=kind.usual_length(self.config),
            lowercase=self.sentence.lowercase,
            token_types=kind.token_types,
        )
        tokenizer.prefetch()
        embeds = kind.task == "embed"
        checkpoint = _describe(
            name,
            self.encoder,
            self.config,
            (architecture, kind),
            absolute=kind.absolute(self.config),
            generation=read_optional_json(self.encoder / "generation_config.json"),
            sentence=self.sentence,
        )
        weights = self.weights if embeds else self.weights[:1]
        for path, _ in weights:
            if path.suffix == ".json" and read_optional_json(path).get("weight_map") == {}:
                raise ModelError(f"{path}: weight_map names no tensor")
        store = WeightStore(weights)
        return Opened(store, tokenizer, checkpoint, self.sentence.modules if embeds else ())

    def weights_files(self) -> list[Path]:
        """Return every file with weights, shards that an index names included."""
        found = []
        for path, _ in self.weights:
            if path.suffix != ".json":
                found.append(path)
                continue
            shards = read_json(path).get("weight_map")
            names = set(shards.values()) if isinstance(shards, dict) else set()
            found += [path.parent / str(shard) for shard in sorted(names, key=str)]
        return found

    def folders(self) -> list[Path]:
        """Return the folders whose small files say what the model is."""
        modules = [self.root / name for name in self.sentence.folders]
        return list(dict.fromkeys([self.root, self.encoder, *modules]))


@dataclass(frozen=True)
class GgufFile(Source):
    """A GGUF file, which is a whole model."""

    root: Path

    @property
    def place(self) -> Path:
        """The folder that the file lies in."""
        return self.root.parent

    @property
    def config_file(self) -> Path:
        """The file."""
        return self.root

    def open(self, name: str, task: str | None) -> Opened:
        """Read it, as what `task` names."""
        from trine import gguf

        model = gguf.read(self.root)
        chosen = _choose(model.config, self.root, task, modules=False)
        model.tokenizer.prefetch()
        checkpoint = _describe(name, self.place, model.config, chosen)
        return Opened(model.store, model.tokenizer, checkpoint)

    def weights_files(self) -> list[Path]:
        """Return the file."""
        return [self.root]

    def folders(self) -> list[Path]:
        """Return none: the file says it all."""
        return []


@dataclass(frozen=True)
class MetaFolder(Source):
    """Meta's own folder of a Llama."""

    root: Path

    @property
    def place(self) -> Path:
        """The folder."""
        return self.root

    @property
    def config_file(self) -> Path:
        """params.json."""
        return self.root / "params.json"

    def open(self, name: str, task: str | None) -> Opened:
        """Read it, as what `task` names."""
        from trine import meta

        model = meta.read(self.root)
        chosen = _choose(model.config, self.config_file, task, modules=False)
        config, tokenizer = meta.tokenizer_of(model, chosen[1].usual_length(model.config))
        tokenizer.prefetch()
        checkpoint = _describe(
            name,
            self.root,
            config,
            chosen,
            generation=read_optional_json(self.root / "generation_config.json"),
            notes=model.notes,
        )
        return Opened(model.store, tokenizer, checkpoint)

    def weights_files(self) -> list[Path]:
        """Return the shards."""
        from trine import meta

        return meta.find_shards(self.root)

    def folders(self) -> list[Path]:
        """Return the folder."""
        return [self.root]


def find(
    source: str | os.PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
) -> Source:
    """Return where a model lies; what the Hub is asked for is brought here.

    Raises
    ------
    ModelError
        Nothing there, or nothing that can be read; a small file that is missing or broken.
    """
    path = Path(os.fspath(source)).expanduser()
    if path.suffix == ".gguf" and path.is_file():
        return GgufFile(path)
    if (root := _meta_folder(path)) is not None:
        return MetaFolder(root)
    folder, weights = _resolve(
        source, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only
    )
    return read_folder(folder, weights)


def read_folder(root: Path, weights: Path | None = None) -> Folder:
    """Read the small files of a folder and find its weights; `weights` overrides the main file.

    Raises
    ------
    ModelError
        A missing or broken file: names it.
    """
    has_modules = (root / "modules.json").is_file()
    sentence = sentence_transformers.read(root) if has_modules else SentenceConfig()
    encoder = root / sentence.transformer
    if not (encoder / "config.json").is_file():
        raise ModelError(f"{encoder}: no config.json; {_unreadable(encoder)}")
    files = [(weights or find_weights(encoder), "")]
    files += [(find_weights(root / name), f"{name}.") for name in sentence.weights]
    config = read_json(encoder / "config.json")
    return Folder(root, encoder, config, files, sentence, has_modules)


def find_weights(folder: Path) -> Path:
    """Return a folder's weights file, or the index of its shards."""
    for name in _WEIGHTS:
        if (path := folder / name).is_file():
            return path
    raise ModelError(f"{folder}: no {_WEIGHTS[0]} or {_WEIGHTS[2]}; {_unreadable(folder)}")


def choose_architecture(
    config: dict[str, Any],
    path: Path,
    task: str | None,
    *,
    modules: bool,
    known: dict[str, Architecture],
) -> tuple[str, Architecture]:
    """Pick the architecture to build.

    Parameters
    ----------
    config, path
        config.json, and where it lies.
    task : str or None
        What the caller wants.
    modules : bool
        Whether there is a modules.json, which makes an encoder of any checkpoint.
    known : dict
        `trine.models.ARCHITECTURES`.

    Raises
    ------
    ModelError
        Neither ``architectures`` nor ``model_type`` is known, or the family has no such task.
    """
    named = field(config, "architectures", list, path, [])
    stored = next((name for name in named if name in known), None)
    family = known[stored].family if stored else field(config, "model_type", str, path)
    wanted = task or ("embed" if modules or not named else known[stored].task if stored else None)
    if wanted is None or all(a.family != family for a in known.values()):
        raise ModelError(
            f"{path}: architectures is {named}, model_type is {family!r}; known are "
            f"{', '.join(known)}"
        )
    if stored is not None and known[stored].task == wanted:
        return stored, known[stored]
    for name, architecture in known.items():
        if (architecture.family, architecture.task) == (family, wanted):
            return name, architecture
    raise ModelError(f"{path}: the family {family!r} has no model for the task {wanted!r}")


def _choose(
    config: dict[str, Any], path: Path, task: str | None, *, modules: bool
) -> tuple[str, Architecture]:
    from trine import models

    return choose_architecture(config, path, task, modules=modules, known=models.ARCHITECTURES)


def _describe(
    name: str,
    folder: Path,
    config: dict[str, Any],
    chosen: tuple[str, Architecture],
    **more: Any,
) -> Checkpoint:
    """Return the checkpoint of an architecture; `more` is what not every kind of source says."""
    title, architecture = chosen
    return Checkpoint(
        source=name,
        folder=folder,
        config=config,
        architecture=title,
        task=architecture.task,
        limit=least(architecture.max_length(config)),
        token_types=architecture.token_types,
        padding_idx=architecture.padding_idx,
        causal=architecture.causal,
        **more,
    )


def _meta_folder(path: Path) -> Path | None:
    """Return the folder if Meta's weights are asked for: by name, or where there are no others."""
    folder = path.parent if path.suffix == ".pth" and path.is_file() else path
    if not (folder / "params.json").is_file():
        return None
    from trine import meta

    shards = meta.find_shards(folder)
    if folder != path:
        return folder if path in shards else None
    others = any((path / name).is_file() for name in _WEIGHTS)
    return path if shards and not others else None


def _resolve(
    source: str | os.PathLike[str],
    *,
    revision: str | None,
    cache_dir: str | os.PathLike[str] | None,
    local_files_only: bool,
) -> tuple[Path, Path | None]:
    """Return the folder, and the weights file if that was named."""
    if source == "demo":  # a folder of this name is "./demo"
        from trine import demo

        return demo.folder(), None
    text = os.fspath(source)
    path = Path(text).expanduser()
    if path.is_dir():
        return path, None
    if path.is_file():
        if path.name.endswith(_WEIGHTS_ENDINGS):
            return path.parent, path
        raise ModelError(f"{path}: not a file that can be read; what can is {_READABLE}")
    from trine import hub

    if not isinstance(source, str) or not hub.is_id(text) or path.suffix in _FILE_SUFFIXES:
        raise ModelError(f"{text}: no such file or folder")
    folder = hub.fetch(
        text, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only
    )
    return folder, None


def _unreadable(folder: Path) -> str:
    """Say what lies there instead of what can be read."""
    if not folder.is_dir():
        return "there is no such folder"
    there = sorted(p.name for p in folder.iterdir() if p.suffix in _FILE_SUFFIXES)
    shown = ", ".join(there[:6]) + (", ..." if len(there) > 6 else "")
    return f"there is {shown or 'nothing like it'}. What can be read is {_READABLE}"
