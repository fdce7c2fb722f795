# SPDX-License-Identifier: Apache-2.0
"""Padded arrays to ragged batches and back."""

from __future__ import annotations

import numpy as np
import pytest

from trine import InputError
from trine.padding import unpad


def test_there_and_back() -> None:
    ids = np.array([[5, 6, 7, 1], [8, 1, 1, 1], [1, 1, 1, 1], [1, 1, 3, 4]])
    mask = np.array([[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1]])
    padded = unpad(ids, mask, padding_idx=1)
    assert [row.tolist() for row in padded.tokens] == [[5, 6, 7], [8], [3, 4]]
    assert padded.left == 3
    values = np.arange(1, 13, dtype=np.float32).reshape(6, 2)
    spread = padded.per_token(values)
    assert spread.shape == (4, 4, 2)
    np.testing.assert_array_equal(spread[mask == 1], values)
    assert not spread[mask == 0].any()
    pooled = padded.per_sequence(values[:3])
    np.testing.assert_array_equal(pooled, [[1, 2], [3, 4], [0, 0], [5, 6]])


def test_choices_keep_their_axes() -> None:
    ids = np.arange(24).reshape(2, 3, 4)
    padded = unpad(ids, ndim=3)
    assert padded.per_sequence(np.ones((6, 1), np.float32)).shape == (2, 3, 1)
    assert padded.per_token(np.ones((24, 5), np.float32)).shape == (2, 3, 4, 5)


def test_no_mask_keeps_padding_ids() -> None:
    assert unpad([[5, 1, 1]]).tokens.ids.tolist() == [5, 1, 1]


def test_token_types_follow_the_mask() -> None:
    padded = unpad([[5, 6, 1]], [[1, 1, 0]], [[0, 1, 9]])
    assert padded.tokens.token_types is not None
    assert padded.tokens.token_types.tolist() == [0, 1]


def test_no_rows() -> None:
    padded = unpad(np.zeros((0, 7), np.int64))
    assert len(padded.tokens) == 0
    assert padded.per_token(np.zeros((0, 3), np.float32)).shape == (0, 7, 3)


@pytest.mark.parametrize(
    ("ids", "mask", "complaint"),
    [
        ([1, 2], None, "expected \\[batch, length\\]"),
        ([[[1]]], None, "expected \\[batch, length\\]"),
        ([], None, "expected integers"),
        (np.zeros((2, 0), np.int64), None, "length at least 1"),
        ([[1.0]], None, "input_ids: expected integers"),
        ([[1, 2], [3]], None, "different lengths"),
        ([[1, 2]], [[1]], "attention_mask has shape"),
        ([[1, 2]], [[1, 2]], "zeros and ones"),
        ([[1, 2]], [[0.0, 1.0]], "attention_mask: expected integers"),
        ([[5, 6, 7]], [[1, 0, 1]], "row 0 has a hole"),
        ([[5, 6], [9, 7]], [[1, 1], [0, 1]], "row 1 is padded on the left with ids other than 1"),
    ],
)
def test_refused(ids: object, mask: object, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        unpad(ids, mask, padding_idx=1)


def test_left_padding_is_free_where_positions_do_not_count() -> None:
    assert unpad([[9, 7]], [[0, 1]]).tokens.ids.tolist() == [7]
