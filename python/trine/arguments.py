# SPDX-License-Identifier: Apache-2.0
"""Checks of arguments whose mistakes would otherwise surface far from where they were made."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from trine._core import InputError, ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trine.models import Architecture


def check_count(name: str, value: object) -> None:
    """Raise InputError for what is neither None nor an integer above zero."""
    if value is not None and (not isinstance(value, int) or value < 1):
        raise InputError(f"{name} is {value!r}, expected an integer of at least 1")


def check_load(source: object, threads: object, **names: object) -> None:
    """Raise InputError for arguments of `trine.load` that are of a wrong type."""
    if not isinstance(source, str | os.PathLike):
        kind = type(source).__name__
        raise InputError(f"source: expected a path, a Hub id or 'demo', got {kind}")
    check_count("threads", threads)
    for name, value in names.items():
        if not isinstance(value, str):
            raise InputError(f"{name} is {value!r}, expected a name such as 'auto'")


def explain_task(
    error: ModelError,
    config: Mapping[str, Any],
    task: str | None,
    known: Mapping[str, Architecture],
) -> ModelError:
    """Return the error, with the task that the checkpoint was made for if it is another."""
    made_for = [known[x].task for x in config.get("architectures") or [] if x in known]
    if task is None or task in made_for or not made_for:
        return error
    return ModelError(
        f"{error}. The checkpoint was made for the task {made_for[0]!r}, not {task!r}"
    )
