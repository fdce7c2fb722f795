# SPDX-License-Identifier: Apache-2.0
"""What was read from a model's folder, beyond its weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trine.sentence_transformers import SentenceConfig

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Checkpoint:
    """A model's folder, read.

    Attributes
    ----------
    source : str
        What `trine.load` was given.
    folder : Path
        Where config.json and the tokenizer lie.
    config : dict
        config.json.
    architecture : str
        The one that was built, such as ``"MPNetModel"``.
    task : str
        What it does: embed, fill, classify, tag, ask, choose, detect or generate.
    limit : int or None
        Most tokens of a sequence that the architecture can take.
    token_types : bool
        Whether it reads segment ids.
    padding_idx : int or None
        The padding id by which the architecture counts positions, if it does.
    absolute : bool
        Whether positions are counted from the left of a padded row.
    causal : bool
        Whether a token sees the ones before it alone.
    generation : dict
        generation_config.json.
    notes : list of str
        Where the files contradict the configuration, and what was done about it.
    device_reason : str
        Why the model runs where it does.
    cache : str
        What the load cache had to do with it; empty: nothing.
    unused_tensors : list of str
        Of a compiled file: tensors of its source that no output needs.
    sentence : SentenceConfig
        The sentence-transformers modules and settings.
    """

    source: str
    folder: Path
    config: dict[str, Any]
    architecture: str
    task: str
    limit: int | None = None
    token_types: bool = False
    padding_idx: int | None = None
    absolute: bool = False
    causal: bool = False
    generation: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    device_reason: str = ""
    cache: str = ""
    unused_tensors: list[str] = field(default_factory=list)
    sentence: SentenceConfig = field(default_factory=SentenceConfig)
