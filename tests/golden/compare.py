# SPDX-License-Identifier: Apache-2.0
"""What the tests share to read the goldens and to compare arrays; numpy only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent


def corpus() -> list[str]:
    """Return the 256 sentences of `mpnet_corpus256.npz`, 5 to 200 words each."""
    return (HERE / "corpus256.txt").read_text(encoding="utf-8").splitlines()


def mpnet_reference() -> np.ndarray:
    """Return the vectors of `corpus()` by all-mpnet-base-v2: exact float32."""
    # Stored as one plane per byte of a float32, which compresses better than the numbers do.
    planes = np.load(HERE / "mpnet_corpus256.npz")["byte_planes"]
    return np.ascontiguousarray(planes.transpose(1, 2, 0)).view("<f4")[..., 0]


def read_case(folder: Path) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """Return `forward`'s arguments and the reference's outputs of a golden checkpoint."""
    arrays = dict(np.load(folder / "expected.npz"))
    names = ("input_ids", "attention_mask", "token_type_ids")
    return [arrays.pop(n).astype(np.int64) for n in names if n in arrays], arrays


def relative_error(got: np.ndarray, expected: np.ndarray) -> float:
    """Return max|got - expected| / max|expected|; infinite for another shape, NaN or infinity."""
    if got.shape != expected.shape or not np.isfinite(got).all():
        return float("inf")
    if expected.size == 0:
        return 0.0
    scale = max(float(np.abs(expected).max()), 1e-30)
    return float(np.abs(got.astype(np.float64) - expected).max()) / scale


def assert_outputs(
    got: dict[str, np.ndarray], expected: dict[str, np.ndarray], tolerance: float, what: str = ""
) -> None:
    """Check that every expected output is there, float32, of the shape and near enough."""
    for name, reference in expected.items():
        assert name in got, f"{what}: no output {name!r}, there are {sorted(got)}"
        value = got[name]
        assert value.dtype == np.float32, f"{what} {name}: {value.dtype}"
        assert value.shape == reference.shape, f"{what} {name}: {value.shape}, {reference.shape}"
        error = relative_error(value, reference)
        if error > tolerance:
            worst = np.unravel_index(np.nanargmax(np.abs(value - reference)), value.shape)
            numbers = f"{value[worst]} for {reference[worst]} at {tuple(map(int, worst))}"
            raise AssertionError(f"{what} {name}: relative error {error:.2e}; worst: {numbers}")


def assert_quantized(got: np.ndarray, expected: np.ndarray, unsure: np.ndarray | None) -> None:
    """Check that integer embeddings agree, but for values on the edge between two codes.

    Scalar codes may be one apart where rounding noise of 1e-7 crosses an edge. A bit may differ
    only where `unsure` is set: where the reference value is zero but for noise.
    """
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    if unsure is None:
        apart = np.abs(got.astype(np.int16) - expected.astype(np.int16))
        assert apart.max() <= 1
        assert (apart == 0).mean() >= 0.97
        return
    signed = got.dtype == np.int8
    codes: list[Any] = [
        (a.astype(np.int16) + 128 * signed).astype(np.uint8) for a in (got, expected)
    ]
    bits = [np.unpackbits(c, axis=-1)[:, : unsure.shape[1]].astype(bool) for c in codes]
    assert not ((bits[0] != bits[1]) & ~unsure).any()
