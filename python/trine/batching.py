# SPDX-License-Identifier: Apache-2.0
"""Ragged batches: token ids laid end to end, cut into runs by a token budget."""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trine._core import InputError
from trine.arguments import check_count

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Int32 = NDArray[np.int32]

# Tokens per run: enough rows to keep the GEMMs at full speed, few enough for the activations of
# one step to stay in a shared cache.
TOKEN_BUDGET = 1024
# On a GPU: some thousand rows fill it, and each run waits for its results.
GPU_TOKEN_BUDGET = 32768

# Elements of per-token output per run (64 MiB): a masked LM's logits are a vocabulary wide.
OUTPUT_BUDGET = 1 << 24

_INT32_MAX = np.iinfo(np.int32).max


@dataclass(frozen=True)
class Tokens:
    """Token ids of several sequences, laid end to end without padding.

    Attributes
    ----------
    ids : ndarray of int32, shape [tokens]
    offsets : ndarray of int32, shape [sequences + 1]
        Sequence ``i`` is ``ids[offsets[i]:offsets[i + 1]]``, special tokens included.
    truncated : list of int
        For each sequence, how many tokens of its text were cut away to fit the model.
    token_types : ndarray of int32, shape [tokens], or None
        Segment ids, for models that have them.

    Examples
    --------
    >>> import trine
    >>> with trine.load("demo") as model:
    ...     tokens = model.tokenize(["Hello.", "Hello, world."])
    >>> tokens.offsets
    array([ 0,  4, 10], dtype=int32)
    """

    ids: Int32
    offsets: Int32
    truncated: list[int]
    token_types: Int32 | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> Int32:
        if not -len(self) <= index < len(self):
            raise IndexError(f"sequence {index} of {len(self)}")
        index %= len(self)
        return self.ids[self.offsets[index] : self.offsets[index + 1]]

    def __iter__(self) -> Iterator[Int32]:
        return (self[i] for i in range(len(self)))

    @property
    def lengths(self) -> Int32:
        """Tokens in each sequence, shape [sequences]."""
        return np.diff(self.offsets)

    def select(self, rows: NDArray[np.intp]) -> Tokens:
        """Return the sequences `rows`, in that order, as a batch of their own."""
        parts = [slice(self.offsets[i], self.offsets[i + 1]) for i in rows]
        types = self.token_types
        return Tokens(
            ids=np.concatenate([self.ids[p] for p in parts]),
            offsets=offsets_of(self.lengths[rows]),
            truncated=[self.truncated[i] for i in rows],
            token_types=None if types is None else np.concatenate([types[p] for p in parts]),
        )


def offsets_of(lengths: Sequence[int] | NDArray[Any]) -> Int32:
    """Turn lengths [n] into offsets [n + 1].

    Raises
    ------
    InputError
        More tokens in one call than 32-bit offsets can address.
    """
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    if offsets[-1] > _INT32_MAX:
        raise InputError(f"{offsets[-1]} tokens in one call; the limit is {_INT32_MAX}")
    return offsets.astype(np.int32)


def int_array(values: object, what: str) -> NDArray[Any]:
    """Turn lists or an integer array of any width into an int32 array of the same shape.

    Raises
    ------
    InputError
        Not integers, rows of different lengths, or a value that 32 bits cannot hold.
    """
    if values is None or isinstance(values, str | bytes | dict | set):
        raise InputError(f"{what}: expected an array of integers, got {type(values).__name__}")
    try:
        array = np.asarray(values)
    except (ValueError, TypeError) as error:
        raise InputError(f"{what}: rows of different lengths, or not numbers") from error
    if array.dtype == np.int32:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.int32)
    if array.dtype.kind not in "iu":
        raise InputError(f"{what}: expected integers, got {_kind(array)}")
    if array.size and (array.min() < -_INT32_MAX - 1 or array.max() > _INT32_MAX):
        worst = array.max() if array.max() > _INT32_MAX else array.min()
        raise InputError(f"{what}: {worst} is out of range")
    return array.astype(np.int32)


def _kind(array: NDArray[Any]) -> str:
    if array.dtype == np.object_:
        return "rows of different lengths, or objects"
    if array.dtype.kind in "US":
        return "texts"
    return f"an empty {array.dtype} array" if array.size == 0 else str(array.dtype)


def join_ids(sequences: Sequence[object], *, first: int = 0) -> Tokens:
    """Lay id sequences end to end as they are.

    Parameters
    ----------
    sequences : sequence of 1-D integer sequences
    first : int
        Index of the first one in the caller's input, for messages.

    Raises
    ------
    InputError
        An empty sequence, or something that is not integers.
    """
    rows = []
    for index, sequence in enumerate(sequences, first):
        if isinstance(sequence, Sized) and not len(sequence):
            raise InputError(f"input {index} has no tokens")
        row = int_array(sequence, f"input {index}")
        if row.ndim != 1:
            raise InputError(f"input {index}: token ids of shape {row.shape}, expected one row")
        rows.append(row)
    ids = np.concatenate(rows) if rows else np.zeros(0, np.int32)
    return Tokens(ids, offsets_of([len(row) for row in rows]), [0] * len(rows))


def plan(
    lengths: NDArray[np.int32], *, budget: int = TOKEN_BUDGET, batch_size: int | None = None
) -> Iterator[NDArray[np.intp]]:
    """Cut sequences into runs of at most `budget` tokens, longest first.

    Parameters
    ----------
    lengths : ndarray of int32, shape [n]
    budget : int
        Tokens per run; a single sequence may exceed it.
    batch_size : int or None
        Most sequences per run.

    Yields
    ------
    ndarray of intp
        Row numbers of one run. Every row comes once.
    """
    batch_size = check_count("batch_size", batch_size)
    order = np.argsort(-lengths, kind="stable")
    start = total = 0
    for end, row in enumerate(order):
        full = total + lengths[row] > budget or end - start == batch_size
        if full and end > start:
            yield order[start:end]
            start, total = end, 0
        total += int(lengths[row])
    if start < len(order):
        yield order[start:]
