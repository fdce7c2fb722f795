# SPDX-License-Identifier: Apache-2.0
"""Checks of arguments whose mistakes would otherwise surface far from where they were made."""

from __future__ import annotations

import math
import operator
import os
import re
from collections.abc import Iterable
from numbers import Real
from typing import Any

from trine._core import InputError

# The core counts in 32 bits.
MOST = 2**31 - 1

_SURROGATE = re.compile("[\ud800-\udfff]")


def check_int(name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """Return an integer of any type that is one, numpy's too; InputError for all else."""
    try:
        found = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        found = None
    if found is None or found < least:
        raise InputError(f"{name} is {value!r}, expected an integer of at least {least}")
    if most is not None and found > most:
        raise InputError(f"{name} is {value!r}, expected an integer of at most {most}")
    return found


def check_count(name: str, value: Any) -> int | None:
    """Return an integer above zero, or None; InputError for all else."""
    return None if value is None else check_int(name, value)


def check_number(name: str, value: Any, least: float, most: float = math.inf) -> float:
    """Return a finite number of any real type, numpy's too; InputError for all else."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InputError(f"{name} is {value!r}, expected a number")
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not least <= found <= most or not math.isfinite(found):
        between = f"from {least:g} to {most:g}" if most < math.inf else f"of at least {least:g}"
        raise InputError(f"{name} is {value!r}, expected a number {between}")
    return found


def check_unicode(name: str, text: str) -> str:
    """Return a text; InputError for one that has half of a surrogate pair."""
    if (half := None if text.isascii() else _SURROGATE.search(text)) is not None:
        raise InputError(
            f"{name} has half of a surrogate pair, {half[0]!r}, at character {half.start()}: "
            "that is not Unicode"
        )
    return text


def check_text(name: str, value: Any) -> str:
    """Return a text; InputError for what is none, or is not Unicode."""
    if not isinstance(value, str):
        raise InputError(f"{name}: expected a text, got {type(value).__name__}")
    return check_unicode(name, value)


def check_texts(name: str, values: Any) -> list[str]:
    """Return any iterable of texts as a list; InputError for anything else."""
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        what = repr(values) if isinstance(values, str) else type(values).__name__
        raise InputError(f"{name}: expected a list of texts, got {what}")
    try:
        listed = list(values)
    except TypeError as error:  # an array without dimensions says that it can be iterated over
        raise InputError(f"{name}: expected a list of texts, got {values!r}") from error
    return [str(check_text(f"{name}[{index}]", value)) for index, value in enumerate(listed)]


def check_known(name: str, value: Any, known: Iterable[str]) -> None:
    """Raise InputError for what is none of the names that are known."""
    if not isinstance(value, str) or value not in known:
        raise InputError(f"{name} {value!r} is not known; known are {', '.join(known)}")


def check_path(name: str, value: Any) -> str:
    """Return a path as text; InputError for what is none."""
    if not isinstance(value, str | os.PathLike) or not isinstance(path := os.fspath(value), str):
        raise InputError(f"{name}: expected a path, got {type(value).__name__}")
    return path


def check_load(
    source: object,
    threads: object,
    *,
    keep: object = None,
    revision: object = None,
    **names: object,
) -> None:
    """Raise InputError for arguments of `trine.load` that are of a wrong type."""
    if not isinstance(source, str | os.PathLike):
        kind = type(source).__name__
        raise InputError(f"source: expected a path, a Hub id or 'demo', got {kind}")
    if source == "":
        raise InputError("source is empty, expected a path, a Hub id or 'demo'")
    if threads is not None:
        check_int("threads", threads, 1, MOST)
    if keep is not None:
        check_texts("keep", keep)
    if not isinstance(revision, str | None):
        raise InputError(f"revision is {revision!r}, expected a branch, tag or commit")
    for name, value in names.items():
        if not isinstance(value, str):
            raise InputError(f"{name} is {value!r}, expected a name such as 'auto'")
        check_unicode(name, value)
