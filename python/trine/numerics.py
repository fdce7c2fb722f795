# SPDX-License-Identifier: Apache-2.0
"""Scores from logits, as transformers' pipelines compute them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


def softmax(logits: Float32) -> Float32:
    """Softmax over the last axis."""
    exp = np.exp(logits - logits.max(axis=-1, keepdims=True))
    scores: Float32 = exp / exp.sum(axis=-1, keepdims=True)
    return scores


def sigmoid(logits: Float32) -> Float32:
    """Logistic function, without overflow on either side."""
    exp = np.exp(-np.abs(logits))
    scores: Float32 = np.where(logits >= 0, 1 / (1 + exp), exp / (1 + exp))
    return scores
