# SPDX-License-Identifier: Apache-2.0
"""The forms that a task's inputs may have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from trine._core import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Texts that are tokenised, run and answered before the next ones are looked at.
WINDOW = 4096


def windows(items: Sequence[Any]) -> Iterator[tuple[int, Sequence[Any]]]:
    """Cut a long input into windows; yields the index of each one's first item."""
    for start in range(0, len(items), WINDOW):
        yield start, items[start : start + WINDOW]


def as_list(inputs: Any, *, single: tuple[type, ...] = (str,)) -> tuple[list[Any], bool]:
    """Return the inputs as a list, and whether the caller gave one input by itself.

    One input is an instance of `single` or one row of token ids; many are any iterable of those.
    """
    inputs = _plain(inputs)
    if isinstance(inputs, single):
        return [inputs], True
    if isinstance(inputs, bytes | dict | str):
        raise InputError(f"inputs: expected a list, got {type(inputs).__name__}")
    if isinstance(inputs, np.ndarray):
        if inputs.ndim == 1 and inputs.dtype.kind in "iu":
            return [inputs], True
        return (list(inputs) if inputs.dtype.kind in "iu" else inputs.tolist()), False
    try:
        items = [_plain(item) for item in inputs]
    except TypeError as error:
        raise InputError(f"inputs: expected a list, got {type(inputs).__name__}") from error
    if items and isinstance(items[0], int | np.integer):
        return [items], True
    return items, False


def _plain(value: Any) -> Any:
    """Return what an array without dimensions holds; anything else as it is."""
    return value.item() if isinstance(value, np.ndarray) and not value.ndim else value


def as_item(item: Any, index: int) -> Any:
    """Return a text as it is and a pair, in any of its forms, as a tuple; token ids as they are."""
    if isinstance(item, str):
        return item
    if isinstance(item, dict):
        first, second = item.get("text"), item.get("text_pair")
        if isinstance(first, str) and isinstance(second, str | None):
            return first if second is None else (first, second)
        raise InputError(f"input {index}: expected 'text' and 'text_pair', got {sorted(item)}")
    if not isinstance(item, (list, tuple, np.ndarray)):
        kind = type(item).__name__
        raise InputError(f"input {index}: expected a text or token ids, got {kind}")
    if len(item) and isinstance(item[0], str):
        if len(item) != 2:
            raise InputError(f"input {index}: a pair is two texts, got {len(item)} items")
        if not isinstance(item[1], str):
            kind = type(item[1]).__name__
            raise InputError(f"input {index}: a pair is two texts, the second one is {kind}")
        return (item[0], item[1])
    return list(item) if isinstance(item, tuple) else item
