# SPDX-License-Identifier: Apache-2.0
"""Configurations: a dataclass per family, with the names and defaults of transformers."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, TypeVar

from trine import _core
from trine._core import ModelError

if TYPE_CHECKING:
    from trine.nn import Value

T = TypeVar("T")

_LARGEST = 2**31 - 1  # what the core counts with; infinity and NaN are not within it
_PROBLEMS = (
    None,
    "regression",
    "single_label_classification",
    "multi_label_classification",
)

_KINDS: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "bool": (bool,),
}


def read(cls: type[T], config: dict[str, Any]) -> T:
    """Make a ``cls`` of the fields that it has; one of another type is a ``ModelError``.

    Absent fields and nulls take the default. Fields that ``cls`` lacks (dropout and the like) are
    left out. A size whose default is positive must be positive.
    """
    known: dict[str, Any] = {}
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        value = config.get(field.name)
        if value is None:
            continue
        kinds = _KINDS[str(field.type)]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            msg = f"config.json: {field.name} must be {field.type}, but is {value!r}"
            raise ModelError(msg)
        _check_range(field.name, value, field.default)
        known[field.name] = value
    return cls(**known)


def _check_range(name: str, value: Any, default: Any) -> None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        require(abs(value) <= _LARGEST, f"{name} is out of range: {value!r}")
    if isinstance(default, int) and not isinstance(default, bool) and default > 0:
        require(value > 0, f"{name} must be positive, but is {value!r}")
    if name.endswith("eps"):
        require(value >= 0, f"{name} must be 0 or more, but is {value!r}")


def num_labels(config: dict[str, Any]) -> int:
    """Labels of a classification head, as transformers counts them; 2 by default.

    ``ModelError`` for labels that are no object or none at all, and for a ``problem_type`` that
    transformers doesn't know: what scores would mean is unclear.
    """
    problem = config.get("problem_type")
    require(problem in _PROBLEMS, f"problem_type {problem!r} is not known")
    for name in ("id2label", "label2id"):
        labels = config.get(name)
        require(
            labels is None or isinstance(labels, dict), f"{name} must be an object, not {labels!r}"
        )
    id2label = config.get("id2label")
    if id2label is not None:
        require(bool(id2label), "id2label has no labels")
        return len(id2label)
    count = config.get("num_labels")
    if count is None:
        count = 2
    if not isinstance(count, int) or count < 1:
        msg = f"config.json: num_labels must be a positive int, but is {count!r}"
        raise ModelError(msg)
    return count


def require_shape(value: Value, expected: tuple[int, ...], fields: str) -> Value:
    """The weight itself, if it has the shape that these fields of the configuration ask for."""
    require(
        value.shape == expected, f"{fields} ask for {expected}, but {value.name} is {value.shape}"
    )
    return value


def require_activation(name: str, field: str) -> None:
    """Raise ``ModelError`` that names the field when there is no such activation."""
    try:
        _core.activation(name)
    except ModelError as error:
        raise ModelError(f"config.json: {field}: {error}") from None


def require(condition: bool, message: str) -> None:  # noqa: FBT001
    """Raise ``ModelError`` about ``config.json`` unless the condition holds."""
    if not condition:
        raise ModelError(f"config.json: {message}")
