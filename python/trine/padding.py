# SPDX-License-Identifier: Apache-2.0
"""Between the padded arrays of transformers' callers and the ragged batches of the core."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trine._core import InputError
from trine.batching import Int32, Tokens, int_array, offsets_of

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Padded:
    """A padded input taken apart; knows how to put outputs back into its shape."""

    tokens: Tokens  # the rows that have tokens, in order
    rows: NDArray[np.intp]  # which rows of the padded batch these are
    kept: NDArray[np.bool_]  # [batch, length]: where their tokens stand
    shape: tuple[int, ...]  # of the caller's input_ids: [..., length]

    @property
    def left(self) -> int | None:
        """The first row that is padded on the left, if there is one."""
        rows = np.flatnonzero(~self.kept[:, 0] & self.kept.any(axis=1))
        return int(rows[0]) if len(rows) else None

    def per_token(self, values: Float32) -> Float32:
        """Spread [tokens, columns] over [..., length, columns]; padding is zero."""
        out = np.zeros((*self.kept.shape, values.shape[1]), np.float32)
        out[self.kept] = values
        return out.reshape(*self.shape, values.shape[1])

    def per_sequence(self, values: Float32) -> Float32:
        """Spread [sequences, columns] over [..., columns]; rows without tokens are zero."""
        out = np.zeros((len(self.kept), values.shape[1]), np.float32)
        out[self.rows] = values
        return out.reshape(*self.shape[:-1], values.shape[1])


def unpad(
    input_ids: object,
    attention_mask: object = None,
    token_type_ids: object = None,
    *,
    ndim: int = 2,
    padding_idx: int | None = None,
) -> Padded:
    """Take padded arrays apart.

    Parameters
    ----------
    input_ids : int array or nested lists, shape [batch, length] ([batch, choices, length])
    attention_mask : the same shape, or None for "every token counts"
        Each row must be one unbroken run of ones: a ragged sequence has no holes, and in
        transformers a hole still moves the positions of what follows it.
    token_type_ids : the same shape, or None
    ndim : int
        3 for multiple choice.
    padding_idx : int or None
        For models that count positions by ``id != padding_idx``: the only id that may stand,
        masked, before a row's first token.

    Raises
    ------
    InputError
        Wrong types or shapes, or a mask with holes.
    """
    ids = int_array(input_ids, "input_ids")
    if ids.ndim != ndim or not ids.shape[-1]:
        names = "[batch, length]" if ndim == 2 else "[batch, choices, length]"
        raise InputError(f"input_ids has shape {ids.shape}, expected {names}, length at least 1")
    shape = ids.shape
    ids = ids.reshape(-1, shape[-1])
    kept = np.ones(ids.shape, np.bool_)
    if attention_mask is not None:
        kept = _mask(_like(attention_mask, "attention_mask", shape), ids, padding_idx)
    lengths = kept.sum(axis=1)
    types = None
    if token_type_ids is not None:
        types = _like(token_type_ids, "token_type_ids", shape)[kept]
    rows = np.flatnonzero(lengths)
    offsets = offsets_of(lengths[rows])
    return Padded(Tokens(ids[kept], offsets, [0] * len(rows), types), rows, kept, shape)


def _like(values: object, what: str, shape: tuple[int, ...]) -> Int32:
    array: Int32 = int_array(values, what)
    if array.shape != shape:
        raise InputError(f"{what} has shape {array.shape}, input_ids has {shape}")
    return array.reshape(-1, shape[-1])


def _mask(mask: Int32, ids: Int32, padding_idx: int | None) -> NDArray[np.bool_]:
    if mask.size and (mask.min() < 0 or mask.max() > 1):
        raise InputError("attention_mask: expected zeros and ones")
    kept = mask.astype(np.bool_)
    starts = kept[:, 0] + (kept[:, 1:] & ~kept[:, :-1]).sum(axis=1)
    if (starts > 1).any():
        row = int(np.flatnonzero(starts > 1)[0])
        raise InputError(
            f"attention_mask: row {row} has a hole; its ones must be one unbroken run. "
            "Take the masked tokens out of input_ids instead"
        )
    if padding_idx is not None:
        before = np.cumsum(kept, axis=1) == 0
        wrong = (before & (ids != padding_idx)).any(axis=1) & kept.any(axis=1)
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise InputError(
                f"input_ids: row {row} is padded on the left with ids other than {padding_idx}, "
                "the only padding by which this model's positions stay where they are"
            )
    return kept
