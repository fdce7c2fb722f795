# SPDX-License-Identifier: Apache-2.0
"""Reading the small files of a checkpoint, with errors that name them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from trine._core import ModelError

if TYPE_CHECKING:
    from pathlib import Path

# Far above any real config or shard index; keeps a lying file from filling the memory.
_JSON_LIMIT = 64 << 20


def read_json_value(path: Path) -> Any:
    """Read a JSON file.

    Raises
    ------
    ModelError
        Missing, too large or not JSON: names the file, the line and the column.
    """
    try:
        size = path.stat().st_size
        if size > _JSON_LIMIT:
            raise ModelError(f"{path}: {size} bytes, the limit for JSON is {_JSON_LIMIT}")
        return json.loads(path.read_bytes())
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # json and Unicode errors are ValueErrors
        raise ModelError(f"{path}: not valid JSON: {error}") from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object; ModelError if it holds something else."""
    value = read_json_value(path)
    if not isinstance(value, dict):
        raise ModelError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def read_optional_json(path: Path) -> dict[str, Any]:
    """Like `read_json`, and an empty object if there is no such file."""
    return read_json(path) if path.is_file() else {}


def field(values: dict[str, Any], name: str, kind: type, path: Path, default: Any = None) -> Any:
    """Return a field of a JSON object, checked: ModelError names file and field.

    A null counts as absent.
    """
    value = values.get(name)
    if value is None:
        return default
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ModelError(f"{path}: {name} is {value!r}, expected {kind.__name__}")
    return value
