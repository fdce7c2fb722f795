# SPDX-License-Identifier: Apache-2.0
"""`trine.load`: from a name to a model that is ready to run."""

from __future__ import annotations

import operator
import os
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from trine import arguments, devices, sources
from trine._core import InputError, ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trine.devices import Chosen
    from trine.sources import Opened, Source
    from trine.tasks.base import Task

Device = Literal["auto", "cpu", "cuda", "metal"]
Dtype = Literal["auto", "float32", "bfloat16", "float16", "int8", "int4"]
_ABOUT = "config.json: "  # how errors about the configuration begin
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
    cache: bool = True,
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
    device : {"auto", "cpu", "cuda", "cuda:1", "metal", ...}
        ``"auto"`` is the first GPU whose plugin is installed and works, but for Metal's, which has
        not run on hardware yet; else the CPU. ``info()`` says which and why.
    dtype : {"auto", "float32", "bfloat16", "float16", "int8", "int4"}
        What linear layers hold their weights in and multiply. In bfloat16, int8 and int4 attention
        multiplies bfloat16 on a CPU, and generators' caches hold it; everything else is float32. On
        GPUs values between layers are in bfloat16 or float16, too, where that is the dtype. float16
        is for ``device="metal"``.
        ``"auto"`` is bfloat16 on processors that multiply it faster, else float32; for a compiled
        file, what it was compiled in.
    threads : int or None
        How many threads to compute with; by default one for each CPU that the process may use.
    keep : sequence of str or None
        For ``"int8"`` and ``"int4"``: patterns (`fnmatch`) of the weights of linear layers that are
        not to be quantised but held in bfloat16, such as ``"*.output.dense.weight"``. By default
        none.
    revision : str or None
        Branch, tag or commit, for a Hub id.
    cache_dir : path or None
        The Hub's cache, if not the usual one.
    local_files_only : bool
        Don't reach for the network.
    cache : bool
        Keep the compiled model in a file, so that the next ``load`` of the same source maps that
        (docs/load-cache.md); ``info()["cache"]`` says what was done. False: as if there were none.

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
    >>> model = trine.load("demo")
    >>> model.encode("A sentence.").shape
    (768,)
    >>> model.close()
    """
    given = {"device": device, "dtype": dtype} | ({} if task is None else {"task": task})
    arguments.check_load(source, threads, keep=keep, revision=revision, **given)
    threads = None if threads is None else operator.index(threads)
    wanted = None if task is None else _ALIASES.get(task, task)
    if wanted is not None and wanted not in _CLASSES:
        raise InputError(f"task {task!r} is not known; known are {', '.join(_CLASSES)}")
    path, name = Path(os.fspath(source)).expanduser(), os.fspath(source)
    place = devices.choose(device)
    if path.suffix == ".trine" and path.is_file():
        if keep is not None:
            raise InputError(f"{path}: is compiled, so it is too late for keep")
        return map_compiled(
            path, source=name, task=wanted, place=place, dtype=dtype, threads=threads
        )
    chosen = place.dtype(dtype)
    if keep is not None and chosen not in QUANTISED:
        raise InputError(f"keep is for {' and '.join(QUANTISED)}; the dtype is {chosen}")
    how = How(place, chosen, threads, keep)
    found = sources.find(
        source, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only
    )

    def compiled() -> Task:
        return build(found, source=name, task=wanted, how=how)

    if not cache or place.device != "cpu":
        return compiled()
    from trine import load_cache

    def mapped(file: Path) -> Task:
        return map_compiled(
            file,
            source=name,
            task=None,
            place=place,
            dtype=chosen,
            threads=threads,
            folder=found.place,
        )

    options = {"dtype": chosen, "task": wanted, "keep": None if keep is None else list(keep)}
    return load_cache.load(found, options, compiled, mapped)


@dataclass(frozen=True)
class How:
    """What a model is computed with."""

    place: Chosen
    dtype: str
    threads: int | None
    keep: Sequence[str] | None


def map_compiled(
    path: Path,
    *,
    source: str,
    task: str | None,
    place: Chosen,
    dtype: str,
    threads: int | None,
    folder: Path | None = None,
) -> Task:
    """Map a compiled file and wrap it in the class of its task; errors name `folder`, if given."""
    from trine import compiled

    core, checkpoint, tokenizer = compiled.load(
        path,
        source=source,
        task=task,
        place=place,
        dtype=dtype,
        threads=threads,
        folder=folder,
    )
    if checkpoint.task not in _CLASSES:
        raise ModelError(f"{path}: task {checkpoint.task!r} is not known; compile the model again")
    task_class = _class_of(checkpoint.task)
    core.prepare(task_class.needs)
    # No reading ahead of the tokenizer: that would hold the GIL while there is nothing to wait for.
    return task_class(core, checkpoint, tokenizer)


def build(found: Source, *, source: str, task: str | None, how: How) -> Task:
    """Write the graph, compile it and wrap it in the class of its task; errors name the root."""
    from trine import models

    try:
        opened = found.open(source, task)
    except ModelError as error:
        raise _located(error, found) from error
    checkpoint = opened.checkpoint
    try:
        graph = models.build(
            opened.store,
            checkpoint.config,
            checkpoint.architecture,
            opened.modules,
            how.keep or (),
        )
        core = graph.compile(
            device=how.place.device, dtype=how.dtype, threads=how.threads, plugin=how.place.plugin
        )
    except ModelError as error:
        raise ModelError(f"{_located(error, found)}{_advice(error, opened, task)}") from error
    task_class = _class_of(checkpoint.task)
    core.prepare(task_class.needs)
    described = replace(
        checkpoint, notes=checkpoint.notes + graph.notes, device_reason=how.place.reason
    )
    return task_class(core, described, opened.tokenizer)


def _located(error: ModelError, found: Source) -> ModelError:
    """Return the error with its place: about the configuration, a family's file doesn't know it."""
    text = str(error)
    if text.startswith(_ABOUT):
        return ModelError(f"{found.config_file}: {text.removeprefix(_ABOUT)}")
    return error if str(found.root) in text else ModelError(f"{found.root}: {text}")


def _advice(error: ModelError, opened: Opened, task: str | None) -> str:
    """Say which task the checkpoint would do for, if it isn't the one that it was loaded as."""
    from trine import models

    checkpoint, known = opened.checkpoint, models.ARCHITECTURES
    named = checkpoint.config.get("architectures") or []
    made_for = [known[name].task for name in named if name in known]
    if task is not None:
        other = task not in made_for and made_for
        return (
            f". The checkpoint was made for the task {made_for[0]!r}, not {task!r}" if other else ""
        )
    family = known[checkpoint.architecture].family
    encoder = next((n for n, a in known.items() if (a.family, a.task) == (family, "embed")), None)
    if encoder is None or checkpoint.task == "embed" or "no tensor" not in str(error):
        return ""
    try:
        models.build(opened.store, checkpoint.config, encoder)
    except ModelError:
        return ""
    return f". What the file lacks is the head for {checkpoint.task!r}: task='embed' loads the rest"


def _class_of(task: str) -> type[Task]:
    module, name = _CLASSES[task]
    found: type[Task] = getattr(import_module(f"trine.tasks.{module}"), name)
    return found
