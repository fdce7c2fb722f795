# SPDX-License-Identifier: Apache-2.0
"""``dtype="int8"`` beside float32 for all families: how near, which layers, how many bytes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from compare import HERE, corpus, mpnet_reference

import trine
from trine import _core
from trine.bench import bench

if TYPE_CHECKING:
    from pathlib import Path

FOLDERS = sorted(
    path.parent
    for family in ("heads", "deberta", "llama")
    for path in (HERE / family).glob("*/config.json")
)
IDS = [f"{path.parent.name}-{path.name}" for path in FOLDERS]
# Rounding moves an element by up to 1/254 of the largest of its row, which in rows of normal
# numbers is about 3 deviations: 3/254/sqrt(3) of a deviation, for x and for w. The errors of a
# product's terms are independent, so a linear's result is off by about 1 % of its size.
PER_LINEAR = 2**0.5 * 3 / 254 / 3**0.5
# Linears one behind the other in a layer (v, o, up, down), whose errors add up like a random walk.
# Norms of what nearly cancels, and the rows of tiny models, are worth a factor.
LINEARS = 4
MOST = 4


def forward(folder: Path, dtype: Any, **options: Any) -> dict[str, np.ndarray]:
    arrays = np.load(folder / "expected.npz")
    inputs = {k: v for k, v in arrays.items() if k in ("input_ids", "attention_mask")}
    with trine.load(folder, dtype=dtype, device="cpu", **options) as model:
        assert model.info()["dtype"] == dtype
        return dict(model.forward(inputs["input_ids"], inputs.get("attention_mask")))


def error(got: np.ndarray, want: np.ndarray) -> float:
    """Root mean square of the difference, as a share of the values'."""
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


@pytest.mark.parametrize("folder", FOLDERS, ids=IDS)
def test_near_float32(folder: Path) -> None:
    layers = json.loads((folder / "config.json").read_text())["num_hidden_layers"]
    exact, rounded = forward(folder, "float32"), forward(folder, "int8")
    bound = MOST * PER_LINEAR * (LINEARS * (layers + 1)) ** 0.5
    for output, want in exact.items():
        assert 0 < error(rounded[output], want) <= bound, f"{output} of {bound:.3f}"


@pytest.mark.parametrize("isa", _core.isas())
@pytest.mark.parametrize("name", ["heads/model", "deberta/model-v2", "llama/generate-bias"])
def test_instruction_sets_agree(name: str, isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums are the same; a value may be rounded to the integer beside it where softmax differs."""
    want = forward(HERE / name, "int8")
    monkeypatch.setenv("TRINE_ISA", isa)
    with trine.load(HERE / name, dtype="int8") as model:
        assert model.info()["isa"] == isa
    for output, values in forward(HERE / name, "int8").items():
        assert error(values, want[output]) <= PER_LINEAR


@pytest.mark.parametrize("name", ["generate", "generate-bias", "generate-granite"])
def test_generation_agrees_with_forward(name: str) -> None:
    """The head is one copy, whatever asks for logits; prompts and single tokens are the same."""
    ids = np.load(HERE / "llama" / name / "expected.npz")["input_ids"][0].tolist()
    with trine.load(HERE / "llama" / name, dtype="int8", device="cpu") as model:
        found = model.generate(ids, max_new_tokens=12, logprobs=0)
        logits = model.forward([ids + found.tokens])["logits"][0][len(ids) - 1 : -1]
        assert logits.argmax(-1).tolist() == found.tokens
        assert model.generate([ids, ids[:3]], max_new_tokens=12)[0].tokens == found.tokens


def test_a_tied_table_is_one_copy(tmp_path: Path) -> None:
    folder = HERE / "llama" / "generate"
    config = json.loads((folder / "config.json").read_text())
    assert config["tie_word_embeddings"]
    rows, columns = config["vocab_size"], config["hidden_size"]
    with trine.load(folder, dtype="int8", keep=[], device="cpu") as model:
        model.forward([[5, 6]])
        model.generate([5, 6], max_new_tokens=2)
        model.save(tmp_path / "m.trine")
        names = [name for name in tensors(tmp_path / "m.trine") if "embed_tokens" in name]
        one = model.info()["weight_bytes"]
    assert names == ["panels_int8/model.embed_tokens.weight"]
    with trine.load(folder, dtype="int8", keep=["*embed_tokens*"], device="cpu") as model:
        model.forward([[5, 6]])
        two = model.info()["weight_bytes"]
        model.save(tmp_path / "m.trine")
    names = [name for name in tensors(tmp_path / "m.trine") if "embed_tokens" in name]
    assert sorted(name.partition("/")[0] for name in names) == ["panels_bf16", "table"]
    assert two - one == rows * columns  # of the wider form: the table is stored in two bytes


def tensors(path: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        return list(file.keys())


def test_keep(tmp_path: Path) -> None:
    folder = HERE / "heads" / "model"
    exact = forward(folder, "float32")["last_hidden_state"]
    errors = [
        error(forward(folder, "int8", keep=keep)["last_hidden_state"], exact)
        for keep in ([], ["*.output.dense.weight"], ["*"])
    ]
    assert errors[0] > errors[1] > errors[2] > 0
    with trine.load(folder, dtype="int8", keep=["*"], device="cpu") as model:
        model.forward([[5, 6]])
        model.save(tmp_path / "kept.trine")
    forms = {name.partition("/")[0] for name in tensors(tmp_path / "kept.trine")}
    assert "panels_bf16" in forms
    assert "panels_int8" not in forms
    with pytest.raises(trine.InputError, match=r"'\*.lstm' fits no linear"):
        trine.load(folder, dtype="int8", keep=["*.lstm"], device="cpu")


def test_a_kept_projection_is_not_merged_with_others(tmp_path: Path) -> None:
    path = tmp_path / "m.trine"
    with trine.load(
        HERE / "heads" / "model", dtype="int8", keep=["*.attn.v.weight"], device="cpu"
    ) as model:
        model.forward([[5, 6]])
        model.save(path)
    forms = {name.rpartition("attn.")[2]: name.partition("/")[0] for name in tensors(path)}
    assert [forms[f"{name}.weight"] for name in "qkvo"] == [
        "panels_int8",
        "panels_int8",
        "panels_bf16",
        "panels_int8",
    ]


def test_keep_is_compiled(tmp_path: Path) -> None:
    folder, path = HERE / "heads" / "model", tmp_path / "m.trine"
    ids = [[5, 6, 7, 8]]
    with trine.load(folder, dtype="int8", keep=["*.attn.o.weight"], device="cpu") as model:
        want = model.forward(ids)["last_hidden_state"]
        model.save(path)
    forms = {name.partition("/")[0] for name in tensors(path) if "attn.o.weight" in name}
    assert forms == {"panels_bf16"}
    with trine.load(path) as mapped:
        assert mapped.info()["dtype"] == "int8"
        np.testing.assert_array_equal(mapped.forward(ids)["last_hidden_state"], want)
    with pytest.raises(trine.InputError, match="too late for keep"):
        trine.load(path, keep=[])


def test_weight_bytes() -> None:
    with (
        trine.load("demo", dtype="float32", device="cpu") as exact,
        trine.load("demo", dtype="int8", device="cpu", keep=[]) as rounded,
    ):
        wide, narrow = exact.info(), rounded.info()
    linears = 12 * (4 * 768 * 768 + 2 * 768 * 3072)
    assert narrow["weight_bytes"] == wide["weight_bytes"] - 3 * linears
    scales = 12 * 8 * (4 * 768 + 3072 + 768)  # and sums, for each column
    assert narrow["bytes_allocated"] < wide["bytes_allocated"] - 3 * linears + 1.3 * scales


def test_sentences() -> None:
    texts = corpus()[:48]
    with trine.load("demo", dtype="int8", device="cpu") as model:
        got = model.encode(texts).astype(np.float64)
        alone = model.encode(texts[7])
    want = mpnet_reference()[:48].astype(np.float64)
    lengths = np.linalg.norm(got, axis=1) * np.linalg.norm(want, axis=1)
    cosine = (got * want).sum(axis=1) / lengths
    assert cosine.mean() >= 0.998
    assert cosine.min() >= 0.99
    np.testing.assert_array_equal(alone, got[7].astype(np.float32))


def test_verify_knows_the_dtype() -> None:
    from trine.verify import verify

    with trine.load("demo", dtype="int8", device="cpu") as model:
        (found,) = verify(model)
    assert found.ok
    assert found.max_difference > 1e-4


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "int4"])
def test_bench_knows_the_peak_of_every_step(dtype: Any) -> None:
    """Attention beside int8 and int4 is in bfloat16, which has another limit."""
    with trine.load(HERE / "heads" / "model", dtype=dtype, device="cpu") as model:
        lines = list(bench(model, [(1, 4)], rounds=2, profile=True))
    line = next(line for line in lines if line.get("case") == "1x4")
    kinds = {step["dtype"] for step in line["profile"]}
    assert kinds == {"float32", dtype} | (set() if dtype == "float32" else {"bfloat16"})
    assert line["limit_share"] > 0
