# SPDX-License-Identifier: Apache-2.0
"""Ragged batches and the runs they are cut into."""

from __future__ import annotations

import numpy as np
import pytest

from trine import InputError
from trine.batching import int_array, join_ids, offsets_of, plan


@pytest.mark.parametrize("seed", range(20))
def test_plan_is_a_partition_within_the_budget(seed: int) -> None:
    rng = np.random.RandomState(seed)
    lengths = rng.randint(1, rng.choice([3, 50, 300]), rng.randint(0, 200)).astype(np.int32)
    budget = int(rng.choice([1, 64, 500]))
    size = None if rng.rand() < 0.5 else int(rng.randint(1, 9))
    runs = list(plan(lengths, budget=budget, batch_size=size))
    rows = [int(row) for run in runs for row in run]
    assert sorted(rows) == list(range(len(lengths)))
    assert [int(n) for n in lengths[rows]] == sorted(lengths.tolist(), reverse=True)
    for run in runs:
        assert len(run) == 1 or lengths[run].sum() <= budget
        assert size is None or len(run) <= size


def test_plan_fills_runs() -> None:
    lengths = np.full(10, 100, np.int32)
    assert [len(run) for run in plan(lengths, budget=300)] == [3, 3, 3, 1]


def test_plan_refuses_an_empty_batch_size() -> None:
    with pytest.raises(InputError, match="batch_size"):
        list(plan(np.ones(3, np.int32), batch_size=0))


def test_tokens_are_a_sequence() -> None:
    tokens = join_ids([[5, 6], (7,), np.array([8, 9, 10], np.uint16)])
    assert len(tokens) == 3
    assert [row.tolist() for row in tokens] == [[5, 6], [7], [8, 9, 10]]
    assert tokens[-1].tolist() == [8, 9, 10]
    with pytest.raises(IndexError):
        tokens[3]
    picked = tokens.select(np.array([2, 0]))
    assert picked.ids.tolist() == [8, 9, 10, 5, 6]
    assert picked.offsets.tolist() == [0, 3, 5]
    assert picked.ids.dtype == picked.offsets.dtype == np.int32


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([[1], []], "input 8 has no tokens"),
        ([[1], [1.5]], "input 8: expected integers"),
        ([[1], [[1, 2]]], "input 8: .* shape"),
        ([[1, 2**31]], "input 7: 2147483648 is out of range"),
        ([[1, -(2**40)]], "out of range"),
        ([["a", "b"]], "expected integers"),
    ],
)
def test_bad_ids(rows: list[object], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        join_ids(rows, first=7)


def test_ragged_rows_are_named() -> None:
    with pytest.raises(InputError, match="different lengths"):
        int_array([[1, 2], [3]], "input_ids")


def test_offsets_beyond_32_bits() -> None:
    with pytest.raises(InputError, match="limit"):
        offsets_of([2**30] * 3)
