# SPDX-License-Identifier: Apache-2.0
"""Label names from config.json."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trine._core import ModelError

if TYPE_CHECKING:
    from trine.checkpoint import Checkpoint


def label_names(checkpoint: Checkpoint, count: int) -> list[str]:
    """Return the names of `count` labels in the order of the logits.

    From ``id2label`` or ``label2id``; ``LABEL_0``, ``LABEL_1``... without either.

    Raises
    ------
    ModelError
        The field is there but doesn't name every label.
    """
    by_id = checkpoint.config.get("id2label")
    by_name = checkpoint.config.get("label2id")
    if not by_id and isinstance(by_name, dict):
        by_id = {index: name for name, index in by_name.items()}
    if not by_id:
        return [f"LABEL_{i}" for i in range(count)]
    names = {str(key): str(name) for key, name in dict(by_id).items()}
    try:
        return [names[str(i)] for i in range(count)]
    except KeyError as error:
        path = checkpoint.folder / "config.json"
        raise ModelError(
            f"{path}: id2label has no label {error}, the model has {count} labels"
        ) from error
