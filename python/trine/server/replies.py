# SPDX-License-Identifier: Apache-2.0
"""JSON as it is sent: never NaN, vectors with as many digits as a float32 needs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from starlette.responses import Response

from trine._core import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


def to_json(content: Any) -> bytes:
    """Return compact JSON.

    Raises
    ------
    ModelError
        A number that JSON doesn't have.
    """
    try:
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError as error:
        raise ModelError("the model gave what is no number") from error
    # Half of a surrogate pair becomes \udxxx, which is how JSON writes it.
    return text.encode("utf-8", "backslashreplace")


def numbers(values: NDArray[Any]) -> str:
    """Return an array of any shape as JSON; reading it as float32 gives the same bits.

    Raises
    ------
    ModelError
        A number that JSON doesn't have.
    """
    if not np.isfinite(values).all():
        raise ModelError("the model gave what is no number")
    if values.ndim > 1:
        return "[" + ",".join([numbers(row) for row in values]) + "]"
    text = "[" + ",".join(["%.9g"] * len(values)) % tuple(values.tolist()) + "]"
    if "-0," in text or "-0]" in text:  # an integer for many readers, and so without its sign
        text = text.replace("-0,", "-0.0,").replace("-0]", "-0.0]")
    return text


class Json(Response):
    """JSON that is text already, or any content."""

    media_type = "application/json"

    def __init__(
        self,
        content: Any = None,
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(content, status_code, headers)

    def render(self, content: Any) -> bytes:
        """Encode the content, unless it is bytes."""
        return content if isinstance(content, bytes) else to_json(content)
