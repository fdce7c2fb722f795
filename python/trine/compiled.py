# SPDX-License-Identifier: Apache-2.0
"""Compiled ``.trine`` files: what Python keeps in them beside the graph, written and read.

The core maps the file and, on the CPU, runs it in place; see docs/compiled-files.md. The metadata
that is Python's business: ``config.json`` and ``tokenizer.json`` as texts, ``trine.task``,
``trine.model`` (what `Checkpoint` holds) and ``trine.tokenizer`` (the settings around the
tokenizer) and ``trine.chat.*`` (what a chat template puts around messages, for C++).
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from trine import _core, chat
from trine._core import InputError, ModelError
from trine.checkpoint import Checkpoint
from trine.files import field
from trine.sentence_transformers import SIMILARITIES, SentenceConfig
from trine.tokenization import TextEncoder
from trine.tokenizer_files import TokenizerSource

if TYPE_CHECKING:
    from pathlib import Path

    from trine.devices import Chosen

SUFFIX = ".trine"


def save(
    core: _core.Model,
    checkpoint: Checkpoint,
    tokenizer: TokenizerSource,
    path: Path,
    *,
    outputs: tuple[str, ...],
    end_tokens: tuple[int, ...],
    max_seq_length: int | None,
) -> None:
    """Write a compiled file; a file of that name is replaced at once or not at all.

    Parameters
    ----------
    outputs : tuple of str
        Those that C++ computes when it is asked for none.
    end_tokens : tuple of int
        Those that end a text, for C++.
    max_seq_length : int or None
        What the user has set it to.
    """
    if path.suffix != SUFFIX:
        raise InputError(f"{path}: the name of a compiled file must end with {SUFFIX}")
    model = asdict(checkpoint)
    for name in ("source", "folder", "config", "task", "device_reason", "cache"):
        del model[name]
    model["unused_tensors"] = core.info()["unused_tensors"] or checkpoint.unused_tensors
    metadata = {
        "trine.task": checkpoint.task,
        "trine.model": _dump({**model, "outputs": outputs, "end_tokens": end_tokens}),
        "config.json": _dump(checkpoint.config),
    }
    if tokenizer.exist():
        encoder = tokenizer.encoder()
        metadata["tokenizer.json"] = encoder.backend.to_str()
        template = tokenizer.chat_template()
        settings = {
            "limit": max_seq_length or encoder.limit,
            "token_types": encoder.token_types,
            "side": encoder.side,
            "special": encoder.special,
            "chat_template": template,
            "special_tokens": tokenizer.special_tokens(),
        }
        metadata["trine.tokenizer"] = _dump(settings)
        if template:
            special = tokenizer.special_tokens()
            framed = chat.frames(template, source=checkpoint.source, special=special)
            metadata |= {f"trine.chat.{name}": text for name, text in framed.items()}
    _core.save(core, path, metadata)


def load(
    path: Path,
    *,
    source: str,
    task: str | None,
    place: Chosen,
    dtype: str,
    threads: int | None,
    folder: Path | None = None,
) -> tuple[_core.Model, Checkpoint, TokenizerSource]:
    """Map a compiled file; `folder`, if given, is what it was made of and what later errors name.

    On the CPU it is run in place; another device gets copies in its own layout.

    Raises
    ------
    ModelError
        No compiled file, a damaged one, one of another format or for another task.
    InputError
        A dtype that it is not compiled in.
    DeviceError
        The device cannot be used, or not in the file's dtype.
    """
    file = _core.CompiledFile(path)
    if dtype not in ("auto", file.dtype):
        raise InputError(
            f"{path}: is compiled in {file.dtype}; for {dtype} compile the model again: "
            f"trine compile MODEL -o FILE --dtype {dtype}"
        )
    checkpoint = replace(_checkpoint(file, path, source), device_reason=place.reason)
    if task not in (None, checkpoint.task):
        raise ModelError(f"{path}: is compiled for the task {checkpoint.task!r}, not {task!r}")
    tokenizer = StoredTokenizer(file, path if folder is None else folder)
    if folder is not None:
        checkpoint = replace(checkpoint, folder=folder)
    core = file.compile(threads or 0, place.device, place.plugin)
    return core, checkpoint, tokenizer


class StoredTokenizer(TokenizerSource):
    """The tokenizer of a compiled file, read at first use."""

    def __init__(self, file: _core.CompiledFile, path: Path) -> None:
        super().__init__()
        self._text, self._path = file.find("tokenizer.json"), path
        self._settings = {} if self._text is None else _load(file, "trine.tokenizer", path)

    def exist(self) -> bool:
        """Whether the model had one."""
        return self._encoder is not None or self._text is not None

    def chat_template(self) -> str | None:
        """Return what the model's files said."""
        template: str | None = field(self._settings, "chat_template", str, self._path)
        return template

    def special_tokens(self) -> dict[str, str]:
        """Return what the model's files said."""
        return _texts(self._settings, "special_tokens", self._path)

    def _read(self) -> TextEncoder:
        from tokenizers import Tokenizer

        if self._text is None:
            raise ModelError(
                f"{self._path}: was compiled without a tokenizer, so this model takes token ids "
                "but no text"
            )
        try:
            backend = Tokenizer.from_str(self._text)
        except Exception as error:  # the library raises plain Exception
            raise ModelError(f"{self._path}: tokenizer.json: {error}") from error
        self._text = None  # the tokenizer has it all
        settings, path = self._settings, self._path
        return TextEncoder(
            backend,
            limit=field(settings, "limit", int, path),
            token_types=field(settings, "token_types", bool, path, default=False),
            side="left" if settings.get("side") == "left" else "right",
            special=_texts(settings, "special", path),
        )


def _checkpoint(file: _core.CompiledFile, path: Path, source: str) -> Checkpoint:
    model = _load(file, "trine.model", path)
    return Checkpoint(
        source=source,
        folder=path,
        config=_load(file, "config.json", path),
        architecture=field(model, "architecture", str, path, ""),
        task=_text(file, "trine.task", path),
        limit=field(model, "limit", int, path),
        token_types=field(model, "token_types", bool, path, default=False),
        padding_idx=field(model, "padding_idx", int, path),
        absolute=field(model, "absolute", bool, path, default=False),
        causal=field(model, "causal", bool, path, default=False),
        generation=field(model, "generation", dict, path, {}),
        notes=field(model, "notes", list, path, []),
        unused_tensors=field(model, "unused_tensors", list, path, []),
        sentence=_sentence(field(model, "sentence", dict, path, {}), path),
    )


def _sentence(values: dict[str, Any], path: Path) -> SentenceConfig:
    similarity = field(values, "similarity", str, path, "cosine")
    if similarity not in SIMILARITIES:
        raise ModelError(f"{path}: similarity {similarity!r} is not known")
    modules = field(values, "modules", list, path, [])
    if not modules or not all(isinstance(m, dict) and "include_prompt" in m for m in modules[:1]):
        modules = SentenceConfig().modules
    return SentenceConfig(
        modules=modules,
        prompts=_texts(values, "prompts", path),
        default_prompt_name=field(values, "default_prompt_name", str, path),
        similarity=similarity,
        truncate_dim=field(values, "truncate_dim", int, path),
    )


def _texts(values: dict[str, Any], name: str, path: Path) -> dict[str, str]:
    found: dict[str, str] = field(values, name, dict, path, {})
    if not all(isinstance(text, str) for text in found.values()):
        raise ModelError(f"{path}: {name} is {found!r}, expected texts")
    return found


def _text(file: _core.CompiledFile, key: str, path: Path) -> str:
    text = file.find(key)
    if text is None:
        raise ModelError(f"{path}: its metadata has no {key}; compile the model again")
    return text


def _load(file: _core.CompiledFile, key: str, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(_text(file, key, path))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: {key}: not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path}: {key}: expected a JSON object, found {type(value).__name__}")
    return value


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
