# SPDX-License-Identifier: Apache-2.0
"""``dtype="bfloat16"`` beside float32: how near, on which layers, and what is chosen by default."""

from __future__ import annotations

import json

import numpy as np
import pytest
from compare import HERE, corpus, mpnet_reference

import trine
from trine import _core

HEADS = HERE / "heads"
NAMES = sorted(path.name for path in HEADS.iterdir() if path.is_dir())
BF16_ISAS = ("amx", "avx512_bf16")
# Rounding to bf16 changes a weight or an input by up to 2**-9 of itself, so each product by 2**-8.
# A layer has four such linears in a row (q/k/v, o, up, down), two products of the same kind between
# the first two of them (q with k, weights with v), and norms that keep the scale.
PER_LINEAR = 2**-8


def forward(name: str, dtype: str) -> dict[str, np.ndarray]:
    arrays = np.load(HEADS / name / "expected.npz")
    with trine.load(HEADS / name, dtype=dtype, device="cpu") as model:
        assert model.info()["dtype"] == dtype
        return model.forward(arrays["input_ids"], arrays["attention_mask"])


@pytest.mark.parametrize("name", NAMES)
def test_near_float32(name: str) -> None:
    layers = json.loads((HEADS / name / "config.json").read_text())["num_hidden_layers"]
    exact, rounded = forward(name, "float32"), forward(name, "bfloat16")
    for output, want in exact.items():
        error = np.abs(rounded[output] - want).max() / np.abs(want).max()
        assert 0 < error <= 6 * layers * PER_LINEAR, f"{output}: {error:.4f}"


@pytest.mark.parametrize("isa", _core.isas())
def test_instruction_sets_agree(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A value may be rounded to the bf16 beside it where another instruction set rounds before."""
    want = forward("model", "bfloat16")["last_hidden_state"]
    monkeypatch.setenv("TRINE_ISA", isa)
    with trine.load(HEADS / "model", dtype="bfloat16") as model:
        assert model.info()["isa"] == isa
    got = forward("model", "bfloat16")["last_hidden_state"]
    assert np.abs(got - want).max() <= 2 * PER_LINEAR * np.abs(want).max()


@pytest.mark.parametrize("isa", _core.isas())
def test_auto(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """bfloat16 is for instruction sets that multiply it, and only where that is faster."""
    monkeypatch.setenv("TRINE_ISA", isa)
    chosen = _core.default_dtype()
    assert chosen in (("bfloat16", "float32") if isa == "avx512_bf16" else ("float32",)) or (
        isa == "amx" and chosen == "bfloat16"
    )
    with trine.load(HEADS / "model") as model:
        assert model.info()["dtype"] == chosen
    assert _core.default_dtype("cuda") == "float32"


def test_best_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRINE_ISA", raising=False)
    isas = _core.isas()
    expected = [isas[0]] if isas[0] != "avx512_bf16" else isas[:2]  # not where it is slow
    assert _core.isa() in expected
    if _core.isa() in BF16_ISAS:
        assert _core.default_dtype() == "bfloat16"


def test_unknown_dtype() -> None:
    with pytest.raises(trine.InputError, match="known are float32, bfloat16, float16, int8, int4"):
        trine.load(HEADS / "model", dtype="float64")


def test_weight_bytes_and_memory() -> None:
    with (
        trine.load("demo", dtype="float32", device="cpu") as exact,
        trine.load("demo", dtype="bfloat16", device="cpu") as rounded,
    ):
        wide, narrow = exact.info(), rounded.info()
    # Norms, tables, biases and the pooler stay as they are.
    linears = 12 * (4 * 768 * 768 + 2 * 768 * 3072)
    assert wide["weight_bytes"] == 4 * wide["parameters"]
    assert narrow["weight_bytes"] == wide["weight_bytes"] - 2 * linears
    assert narrow["bytes_allocated"] < wide["bytes_allocated"] - 1.99 * linears


def test_sentences() -> None:
    texts = corpus()[:48]
    with trine.load("demo", dtype="bfloat16", device="cpu") as model:
        got = model.encode(texts).astype(np.float64)
        alone = model.encode(texts[7])
    want = mpnet_reference()[:48].astype(np.float64)
    lengths = np.linalg.norm(got, axis=1) * np.linalg.norm(want, axis=1)
    cosine = (got * want).sum(axis=1) / lengths
    assert cosine.mean() >= 0.9999  # 0.99999 measured
    assert cosine.min() >= 0.9998
    np.testing.assert_array_equal(alone, got[7].astype(np.float32))


def test_verify_knows_the_dtype() -> None:
    from trine.verify import verify

    with trine.load("demo", dtype="bfloat16", device="cpu") as model:
        (found,) = verify(model)
    assert found.ok
    assert found.max_difference > 1e-5
