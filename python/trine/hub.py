# SPDX-License-Identifier: Apache-2.0
"""Models of the Hugging Face Hub: the extra ``trine[hub]``."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from trine import sentence_transformers
from trine._core import ModelError

# What a model needs: its weights in one format, and the small files beside them. A folder named
# like "1_Pooling" belongs to a sentence-transformers module.
_WANTED = ("*.json", "*.txt", "spm.model", "model*.safetensors", "[0-9]_*/*", "[0-9][0-9]_*/*")
_UNWANTED = ("*.bin", "*.onnx", "*.h5", "*.msgpack", "*.ot", "onnx/*", "openvino/*", "*/onnx/*")
# In the place of safetensors files, where there are none: the same tensors, so never both.
_TORCH = ("pytorch_model.bin", "pytorch_model-*.bin")

_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


def is_id(source: str) -> bool:
    """Whether a text could name a repository: ``name`` or ``owner/name``."""
    return len(source) <= 96 and _ID.fullmatch(source) is not None and ".." not in source


def fetch(
    repository: str,
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
) -> Path:
    """Bring a repository's files into the Hub's cache; returns the folder.

    ``HF_HOME``, ``HF_HUB_CACHE``, ``HF_TOKEN`` and ``HF_HUB_OFFLINE`` hold as everywhere.

    Raises
    ------
    ModelError
        `huggingface_hub` is not installed; there is no such repository or revision; it is not in
        the cache and may not be downloaded.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ModelError(
            f"{repository!r} is no file or folder here; to fetch it from the Hugging Face Hub, "
            "install the extra: pip install 'trine[hub]'"
        ) from error
    options: dict[str, Any] = {
        "revision": revision,
        "cache_dir": None if cache_dir is None else os.fspath(cache_dir),
        "local_files_only": local_files_only,
    }
    try:
        folder = snapshot_download(
            repository,
            allow_patterns=list(_WANTED),
            ignore_patterns=list(_UNWANTED),
            **options,
        )
        if missing := _missing(Path(folder)):
            folder = snapshot_download(repository, allow_patterns=missing, **options)
    except (OSError, ValueError) as error:  # what all errors of the Hub's client derive from
        reason = " ".join(str(error).split())
        raise ModelError(
            f"{repository!r} is no file or folder here, and the Hugging Face Hub gave: {reason}"
        ) from error
    return Path(folder)


def _missing(folder: Path) -> list[str]:
    """Patterns of torch's files for the places that have no safetensors file."""
    places = [""]
    if (folder / "modules.json").is_file():
        sentence = sentence_transformers.read(folder)
        places = [sentence.transformer, *sentence.weights]
    return [
        (Path(place) / name).as_posix()
        for place in places
        if not any((folder / place).glob("model*.safetensors"))
        for name in _TORCH
    ]
