# SPDX-License-Identifier: Apache-2.0
"""`trine.load`: from a name to a model that is ready to run."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from trine import _core, devices, sentence_transformers
from trine._core import InputError, ModelError
from trine.checkpoint import Checkpoint
from trine.files import field, read_json, read_optional_json
from trine.sentence_transformers import SentenceConfig
from trine.tokenizer_files import TokenizerFiles, TokenizerSource, least

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trine.devices import Chosen
    from trine.models import Architecture
    from trine.tasks.base import Task

Device = Literal["auto", "cpu", "cuda", "metal"]
Dtype = Literal["auto", "float32", "bfloat16", "int8", "int4"]
QUANTISED = ("int8", "int4")

# Class of each task, and the module that defines it.
_CLASSES = {
    "embed": ("embedder", "Embedder"),
    "fill": ("filler", "Filler"),
    "classify": ("classifier", "Classifier"),
    "tag": ("tagger", "Tagger"),
    "ask": ("reader", "Reader"),
    "choose": ("chooser", "Chooser"),
    "detect": ("detector", "Detector"),
    "generate": ("generator", "Generator"),
}

# The names that transformers' pipelines have for tasks.
_ALIASES = {
    "feature-extraction": "embed",
    "sentence-similarity": "embed",
    "fill-mask": "fill",
    "text-classification": "classify",
    "zero-shot-classification": "classify",
    "token-classification": "tag",
    "ner": "tag",
    "question-answering": "ask",
    "multiple-choice": "choose",
    "replaced-token-detection": "detect",
    "text-generation": "generate",
}

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


def load(
    source: str | os.PathLike[str],
    *,
    task: str | None = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    threads: int | None = None,
    keep: Sequence[str] | None = None,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
) -> Any:
    """Load a model.

    Parameters
    ----------
    source : str or path
        A Hugging Face folder (``config.json`` with ``model.safetensors`` or ``pytorch_model.bin``,
        or shards with an index), a weights file beside a ``config.json`` (``.safetensors``,
        ``.bin``, ``.pt``, ``.pth`` or an index), a compiled file (``.trine``, from `Task.save` or
        ``trine compile``), a GGUF file of the architectures llama and granite (``.gguf``, nothing
        else needed), a Meta folder of Llama (``params.json`` with ``consolidated.00.pth`` and so
        on), a Hugging Face Hub id (extra ``trine[hub]``), or ``"demo"`` for the weights that the
        extra ``trine[demo]`` installs.
    task : {"embed", "classify", "tag", "ask", "fill", "choose", "detect", "generate"} or
        None
        What to load it as; the pipeline names of transformers will do, too. By default what
        ``modules.json`` and ``architectures`` say.
    device : {"auto", "cpu", "cuda", "cuda:1", ...}
        ``"auto"`` is the first GPU whose plugin is installed and works, else the CPU; ``info()``
        says which and why.
    dtype : {"auto", "float32", "bfloat16", "int8", "int4"}
        What linear layers hold their weights in and multiply; everything else is float32.
        ``"auto"`` is bfloat16 on processors that multiply it faster, else float32; for a compiled
        file, what it was compiled in.
    threads : int or None
        How many threads to compute with; by default one for each CPU that the process may use.
    keep : sequence of str or None
        For ``"int8"`` and ``"int4"``: patterns (`fnmatch`) of the weights of linear layers that are
        not to be quantised but held in bfloat16, such as ``"*.output.dense.weight"``. By default
        the architecture's own, ``()`` for none.
    revision : str or None
        Branch, tag or commit, for a Hub id.
    cache_dir : path or None
        The Hub's cache, if not the usual one.
    local_files_only : bool
        Don't reach for the network.

    Returns
    -------
    Embedder, Classifier, Tagger, Reader, Filler, Chooser, Detector or Generator

    Raises
    ------
    ModelError
        Nothing there, a broken file, a missing tensor, an unknown architecture or module: names
        the file, tensor or field.
    DeviceError
        A device or dtype that this build doesn't have.
    InputError
        An unknown task or dtype, a number of threads below one, or patterns in ``keep`` that fit
        no layer, that the dtype has no use for or that a compiled file cannot follow any more.

    Examples
    --------
    >>> import trine
    >>> model = trine.load("demo")  # doctest: +SKIP
    >>> model.encode("A sentence.").shape  # doctest: +SKIP
    (768,)
    """
    if threads is not None and threads < 1:
        raise InputError(f"threads is {threads}, expected at least 1")
    wanted = None if task is None else _ALIASES.get(task, task)
    if wanted is not None and wanted not in _CLASSES:
        raise InputError(f"task {task!r} is not known; known are {', '.join(_CLASSES)}")
    path = Path(os.fspath(source)).expanduser()
    if path.suffix == ".trine" and path.is_file():
        if keep is not None:
            raise InputError(f"{path}: is compiled, so it is too late for keep")
        return map_compiled(
            path,
            source=os.fspath(source),
            task=wanted,
            device=device,
            dtype=dtype,
            threads=threads,
        )
    place = devices.choose(device)
    chosen = place.dtype(dtype)
    if keep is not None and chosen not in QUANTISED:
        raise InputError(f"keep is for {' and '.join(QUANTISED)}; the dtype is {chosen}")
    how = How(place, chosen, threads, keep)
    if path.suffix == ".gguf" and path.is_file():
        return build_gguf(path, source=os.fspath(source), task=wanted, how=how)
    if (root := _meta_folder(path)) is not None:
        return build_meta(root, source=os.fspath(source), task=wanted, how=how)
    folder, weights = _resolve(
        source, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only
    )
    files = read_folder(folder, weights)
    return build(files, source=os.fspath(source), task=wanted, how=how)


@dataclass(frozen=True)
class How:
    """What a model is computed with."""

    place: Chosen
    dtype: str
    threads: int | None
    keep: Sequence[str] | None


@dataclass(frozen=True)
class Folder:
    """What a model's folder holds."""

    root: Path
    encoder: Path  # where config.json and the tokenizer lie
    config: dict[str, Any]
    weights: list[tuple[Path, str]]  # files, each with what goes before its tensors' names
    sentence: SentenceConfig
    has_modules: bool


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


def build(files: Folder, *, source: str, task: str | None, how: How) -> Task:
    """Compile a folder's model and wrap it in the class of its task."""
    from trine import models

    path = files.encoder / "config.json"
    name, architecture = choose_architecture(
        files.config, path, task, modules=files.has_modules, known=models.ARCHITECTURES
    )
    limit = architecture.max_length(files.config)
    sentence = files.sentence
    tokenizer = TokenizerFiles(
        files.encoder,
        files.config,
        max_seq_length=sentence.max_seq_length,
        most=limit,
        usual=architecture.usual_length(files.config),
        lowercase=sentence.lowercase,
        token_types=architecture.token_types,
    )
    tokenizer.prefetch()
    embeds = architecture.task == "embed"
    store = _core.WeightStore(files.weights if embeds else files.weights[:1])
    checkpoint = Checkpoint(
        source=source,
        folder=files.encoder,
        config=files.config,
        architecture=name,
        task=architecture.task,
        limit=least(limit),
        token_types=architecture.token_types,
        padding_idx=architecture.padding_idx,
        absolute=architecture.absolute(files.config),
        generation=read_optional_json(files.encoder / "generation_config.json"),
        causal=architecture.causal,
        sentence=sentence,
    )
    return _compile(
        store,
        tokenizer,
        checkpoint,
        files.root,
        modules=sentence.modules if embeds else [],
        how=how,
    )


def build_gguf(path: Path, *, source: str, task: str | None, how: How) -> Task:
    """Compile the model of a GGUF file and wrap it in the class of its task."""
    from trine import gguf, models

    model = gguf.read(path)
    name, architecture = choose_architecture(
        model.config, path, task, modules=False, known=models.ARCHITECTURES
    )
    model.tokenizer.prefetch()
    checkpoint = Checkpoint(
        source=source,
        folder=path.parent,
        config=model.config,
        architecture=name,
        task=architecture.task,
        limit=least(architecture.max_length(model.config)),
        token_types=architecture.token_types,
        padding_idx=architecture.padding_idx,
        causal=architecture.causal,
    )
    return _compile(model.store, model.tokenizer, checkpoint, path, how=how)


def _meta_folder(path: Path) -> Path | None:
    """Return the folder if Meta's weights are asked for: by name, or where there are no others."""
    from trine import meta

    if path.is_file():
        named = path.suffix == ".pth" and path in meta.find_shards(path.parent)
        return path.parent if named else None
    others = any((path / name).is_file() for name in _WEIGHTS)
    return path if not others and meta.find_shards(path) else None


def build_meta(folder: Path, *, source: str, task: str | None, how: How) -> Task:
    """Compile the model of a Meta folder and wrap it in the class of its task."""
    from trine import meta, models

    model = meta.read(folder)
    name, architecture = choose_architecture(
        model.config, folder / "params.json", task, modules=False, known=models.ARCHITECTURES
    )
    usual = architecture.usual_length(model.config)
    config, tokenizer = meta.tokenizer_of(model, usual)
    tokenizer.prefetch()
    checkpoint = Checkpoint(
        source=source,
        folder=folder,
        config=config,
        architecture=name,
        task=architecture.task,
        limit=least(architecture.max_length(config)),
        token_types=architecture.token_types,
        padding_idx=architecture.padding_idx,
        generation=read_optional_json(folder / "generation_config.json"),
        causal=architecture.causal,
        notes=model.notes,
    )
    return _compile(model.store, tokenizer, checkpoint, folder, how=how)


def map_compiled(
    path: Path, *, source: str, task: str | None, device: str, dtype: str, threads: int | None
) -> Task:
    """Map a compiled file and wrap it in the class of its task."""
    from trine import compiled

    core, checkpoint, tokenizer = compiled.load(
        path, source=source, task=task, device=device, dtype=dtype, threads=threads
    )
    if checkpoint.task not in _CLASSES:
        raise ModelError(f"{path}: task {checkpoint.task!r} is not known; compile the model again")
    task_class = _class_of(checkpoint.task)
    core.prepare(task_class.needs)
    # No reading ahead of the tokenizer: that would hold the GIL while there is nothing to wait for.
    described = replace(checkpoint, device_reason="the file is compiled for it")
    return task_class(core, described, tokenizer)


def _class_of(task: str) -> type[Task]:
    module, name = _CLASSES[task]
    found: type[Task] = getattr(import_module(f"trine.tasks.{module}"), name)
    return found


def _compile(
    store: _core.WeightStore,
    tokenizer: TokenizerSource,
    checkpoint: Checkpoint,
    root: Path,
    *,
    modules: Sequence[Mapping[str, Any]] = (),
    how: How,
) -> Task:
    """Write the graph, compile it and wrap it; errors name `root`."""
    from trine import models

    try:
        graph = models.build(store, checkpoint.config, checkpoint.architecture, modules, how.keep)
        core = graph.compile(
            device=how.place.device, dtype=how.dtype, threads=how.threads, plugin=how.place.plugin
        )
    except ModelError as error:  # about config.json, it doesn't know where that lies
        if str(root) in str(error):
            raise
        raise ModelError(f"{root}: {error}") from error
    task_class = _class_of(checkpoint.task)
    core.prepare(task_class.needs)
    described = replace(
        checkpoint, notes=checkpoint.notes + graph.notes, device_reason=how.place.reason
    )
    return task_class(core, described, tokenizer)


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


_FILE_SUFFIXES = {".safetensors", ".trine", ".gguf", ".bin", ".pt", ".pth", ".json"}


def _unreadable(folder: Path) -> str:
    """Say what lies there instead of what can be read."""
    if not folder.is_dir():
        return "there is no such folder"
    there = sorted(p.name for p in folder.iterdir() if p.suffix in _FILE_SUFFIXES)
    shown = ", ".join(there[:6]) + (", ..." if len(there) > 6 else "")
    return f"there is {shown or 'nothing like it'}. What can be read is {_READABLE}"
