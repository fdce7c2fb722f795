# SPDX-License-Identifier: Apache-2.0
"""What is done with embeddings after they are made: cut, quantise, compare."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trine._core import InputError
from trine.arguments import check_known

Float32 = NDArray[np.float32]
Precision = Literal["float32", "int8", "uint8", "binary", "ubinary"]
PRECISIONS: tuple[str, ...] = get_args(Precision)

# Below this many, ranges taken from the batch itself are a poor guess.
_FEW = 100


def normalize(vectors: Float32) -> Float32:
    """Scale each row to length one; a row of zeros stays."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    scaled: Float32 = vectors / np.maximum(norms, np.float32(1e-12))
    return scaled


def quantize(
    vectors: Float32, precision: Precision, ranges: ArrayLike | None = None
) -> NDArray[Any]:
    """Make vectors smaller, bit for bit as sentence-transformers' `quantize_embeddings` does.

    Parameters
    ----------
    vectors : ndarray of float32, shape [n, dimension]
    precision : {"float32", "int8", "uint8", "binary", "ubinary"}
        Binary precisions pack the signs of eight values into a byte.
    ranges : array_like, shape [2, dimension], or None
        For int8 and uint8: least and greatest value of each dimension; by default those of
        `vectors` themselves.

    Returns
    -------
    ndarray
        [n, dimension] of float32, int8 or uint8; [n, ceil(dimension / 8)] for binary precisions.

    Raises
    ------
    InputError
        An unknown precision, `ranges` of another shape, or one vector to take ranges from.
    """
    check_known("precision", precision, PRECISIONS)
    if precision == "float32":
        return vectors
    if precision.endswith("binary"):
        bits = np.packbits(vectors > 0, axis=-1)
        return bits if precision == "ubinary" else (bits.astype(np.int16) - 128).astype(np.int8)
    if not len(vectors):
        return np.zeros(vectors.shape, np.int8 if precision == "int8" else np.uint8)
    low, high = _ranges(vectors, precision, ranges)
    steps = (high - low) / 255
    steps = np.where(steps == 0, 1, steps)
    codes: Float32 = np.clip(np.floor((vectors - low) / steps), 0, 255)
    return (codes - 128).astype(np.int8) if precision == "int8" else codes.astype(np.uint8)


def _ranges(vectors: Float32, precision: str, ranges: ArrayLike | None) -> Float32:
    if ranges is not None:
        try:
            given = np.asarray(ranges, np.float32)
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(f"ranges: {error}") from error
        if given.shape != (2, vectors.shape[1]):
            raise InputError(f"ranges has shape {given.shape}, expected (2, {vectors.shape[1]})")
        return given
    if len(vectors) == 1:
        raise InputError(f"{precision} ranges cannot be taken from one vector; give ranges=")
    if len(vectors) < _FEW:
        import logging

        logging.getLogger("trine").warning(
            "%s ranges are taken from %d vectors only; ranges= from a larger sample is steadier",
            precision,
            len(vectors),
        )
    return np.stack([vectors.min(axis=0), vectors.max(axis=0)])


def similarity(a: ArrayLike, b: ArrayLike, kind: str) -> Float32:
    """Score every row of `a` against every row of `b`.

    Parameters
    ----------
    a : array_like, shape [n, dimension] or [dimension]
    b : array_like, shape [m, dimension] or [dimension]
    kind : {"cosine", "dot", "euclidean", "manhattan"}
        Distances are negated: greater is nearer.

    Returns
    -------
    ndarray of float32, shape [n, m]
    """
    left, right = _matrices(a, b, kind)
    if kind in ("cosine", "dot"):
        scores: Float32 = left @ right.T
        return scores
    rows = [_negated_distance(row - right, kind) for row in left]
    return np.stack(rows) if rows else np.zeros((0, len(right)), np.float32)


def similarity_pairwise(a: ArrayLike, b: ArrayLike, kind: str) -> Float32:
    """Score each row of `a` against the same row of `b`: [n]; otherwise as `similarity`."""
    left, right = _matrices(a, b, kind)
    if left.shape != right.shape:
        raise InputError(f"embeddings have shapes {left.shape} and {right.shape}, expected equal")
    if kind in ("cosine", "dot"):
        scores: Float32 = (left * right).sum(axis=1)
        return scores
    return _negated_distance(left - right, kind)


def _matrices(a: ArrayLike, b: ArrayLike, kind: str) -> tuple[Float32, Float32]:
    try:
        left, right = (np.atleast_2d(np.asarray(x, np.float32)) for x in (a, b))
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"embeddings: {error}; texts go through encode first") from error
    if left.ndim != 2 or right.ndim != 2 or left.shape[1] != right.shape[1]:
        raise InputError(f"embeddings have shapes {left.shape} and {right.shape}")
    return (normalize(left), normalize(right)) if kind == "cosine" else (left, right)


def _negated_distance(difference: Float32, kind: str) -> Float32:
    if kind == "manhattan":
        total: Float32 = -np.abs(difference).sum(axis=-1)
        return total
    length: Float32 = -np.linalg.norm(difference, axis=-1)
    return length
