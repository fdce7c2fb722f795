# SPDX-License-Identifier: Apache-2.0
"""Texts to the tokens that don't belong there: replaced-token detection."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from trine.numerics import sigmoid
from trine.tasks.tagger import Tagger

if TYPE_CHECKING:
    from trine.tasks.tagger import Float32


class Detector(Tagger):
    """Finds the tokens of texts that were put in place of others.

    Examples
    --------
    >>> import trine
    >>> with trine.load("tests/golden/examples/tag") as model:  # a `Tagger`; this is one, too
    ...     model.forward([[0, 50, 2]])["logits"].shape
    (1, 3, 5)
    >>> issubclass(trine.Detector, trine.Tagger)
    True
    """

    _squeezed: ClassVar = frozenset({"logits"})
    _outside: ClassVar = "original"

    @property
    def labels(self) -> list[str]:
        """Names of the labels: a logit above zero says ``replaced``."""
        return ["original", "replaced"]

    def _scores(self, logits: Float32) -> Float32:
        replaced = sigmoid(logits[:, 0])
        return np.stack([1 - replaced, replaced], axis=-1)
