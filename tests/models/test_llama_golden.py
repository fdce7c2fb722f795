# SPDX-License-Identifier: Apache-2.0
"""Tiny random decoders against transformers' outputs (no torch needed)."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from compare import HERE, assert_outputs

import trine
from trine import _core

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = HERE / "llama"
# Float32 against float32: sums of a few hundred products in another order, over 2 layers.
TOLERANCE = 2e-5
CLASSES = {
    "classify": "Classifier",
    "generate": "Generator",
    "generate-bias": "Generator",
    "generate-granite": "Generator",
    "model": "Embedder",
    "question": "Reader",
    "tag": "Tagger",
}
GENERATORS = [name for name in CLASSES if name.startswith("generate")]


def load(name: str, folder: Path = FOLDER, **options: Any) -> Any:
    return trine.load(folder / name, dtype="float32", device="cpu", **options)


def read(name: str) -> tuple[list[np.ndarray], dict[str, np.ndarray], np.ndarray | None]:
    """Inputs, outputs and what is generated behind them."""
    stored = dict(np.load(FOLDER / name / "expected.npz"))
    inputs = [stored.pop("input_ids"), stored.pop("attention_mask")]
    return inputs, stored, stored.pop("generated", None)


def prompts_of(inputs: list[np.ndarray]) -> list[list[int]]:
    return [row[kept == 1].tolist() for row, kept in zip(*inputs, strict=True)]


def test_every_folder_has_a_class() -> None:
    assert sorted(CLASSES) == sorted(path.name for path in FOLDER.iterdir())


@pytest.mark.parametrize("isa", _core.isas())
@pytest.mark.parametrize("name", CLASSES)
def test_outputs(name: str, isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRINE_ISA", isa)
    inputs, expected, generated = read(name)
    with load(name) as model:
        assert type(model).__name__ == CLASSES[name]
        assert model.info()["isa"] == isa
        got = model.forward(*inputs)
        assert set(got) == set(expected) | ({"sentence_embedding"} & set(got))
        assert_outputs(got, expected, TOLERANCE, f"{name} {isa}")
        if generated is not None:
            found = model.generate(prompts_of(inputs), max_new_tokens=generated.shape[1])
            assert [x.tokens for x in found] == generated.tolist()


@pytest.mark.parametrize("name", CLASSES)
def test_each_sequence_alone(name: str) -> None:
    """A sequence gives the same bits alone, in its batch, in another order, on other threads."""
    inputs, _, _ = read(name)
    with load(name, threads=1) as model, load(name, threads=3) as parallel:
        together = model.forward(*inputs)
        again = parallel.forward(*(x[::-1] for x in inputs))
        for output, value in together.items():
            np.testing.assert_array_equal(again[output][::-1], value)
        for row in range(len(inputs[0])):
            alone = model.forward(*(x[row : row + 1] for x in inputs))
            for output, value in alone.items():
                np.testing.assert_array_equal(value, together[output][row : row + 1])


@pytest.mark.parametrize("isa", _core.isas())
@pytest.mark.parametrize("name", GENERATORS)
def test_generated_alone_and_together(name: str, isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit: draws and probabilities of prompts of many lengths, shared beginnings or not."""
    monkeypatch.setenv("TRINE_ISA", isa)
    rng = np.random.RandomState(5)
    shared = rng.randint(4, 80, 21).tolist()
    prompts = [rng.randint(4, 80, n).tolist() for n in (1, 2, 15, 16, 17, 33, 90)]
    behind = [shared + rng.randint(4, 80, n).tolist() for n in (0, 1, 5, 30)]
    options: dict[str, Any] = {"temperature": 1.3, "seed": 9, "logprobs": 4, "max_new_tokens": 20}
    with load(name, threads=2) as model, load(name, threads=1) as slow:
        for some in (prompts, behind):
            alone = [model.generate(ids, **options) for ids in some]
            assert model.generate(some, **options) == alone
            assert slow.generate(some[::-1], **options) == alone[::-1]
            assert model.generate(some, batch_size=2, **options) == alone


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", GENERATORS)
def test_generation_agrees_with_forward(name: str, dtype: str) -> None:
    """Each token is the likeliest one behind the text so far, run without a cache."""
    inputs, _, _ = read(name)
    with trine.load(FOLDER / name, dtype=dtype, device="cpu") as model:
        for ids in prompts_of(inputs):
            found = model.generate(ids, max_new_tokens=12, logprobs=0)
            logits = model.forward([ids + found.tokens])["logits"][0][len(ids) - 1 : -1]
            assert logits.argmax(-1).tolist() == found.tokens
            exact = logits.astype(np.float64)
            exact = exact.max(-1) - np.log(np.exp(exact).sum(-1))
            # A head in another dtype would be 2**-9 of a logit off.
            got = [token["logprob"] for token in found.logprobs]
            np.testing.assert_allclose(got, exact, rtol=0, atol=4e-6)


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_shared_beginnings_where_the_length_turns_keys(tmp_path: Path, kind: str) -> None:
    """What is shared was computed at another length than that of the prompts, or of some."""
    parameters: dict[str, Any] = {"rope_type": kind, "factor": 4.0, "rope_theta": 1e4}
    parameters |= {"original_max_position_embeddings": 32}
    parameters |= {"short_factor": [1.0, 1.1, 1.3, 1.7], "long_factor": [1.5, 3.0, 6.0, 9.0]}
    folder = edited(tmp_path, "generate", rope_parameters=parameters, max_position_embeddings=32)
    rng = np.random.RandomState(5)
    shared = rng.randint(4, 80, 21).tolist()
    prompts = [shared + rng.randint(4, 80, n).tolist() for n in (0, 1, 11, 12, 40)]
    options: dict[str, Any] = {"max_new_tokens": 14, "logprobs": 3}
    with load("generate", folder) as model:
        model.max_seq_length = 100
        alone = [model.generate(ids, **options) for ids in prompts]
        assert model.generate(prompts, **options) == alone


def edited(folder: Path, name: str, **changes: Any) -> Path:
    """A copy of a folder with other fields in config.json; None takes one out."""
    shutil.copytree(FOLDER / name, folder / name)
    path = folder / name / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    return folder


def test_a_tied_head_is_explained(tmp_path: Path) -> None:
    inputs, expected, _ = read("generate")
    with load("generate", edited(tmp_path, "generate", tie_word_embeddings=False)) as model:
        assert_outputs(model.forward(*inputs), expected, TOLERANCE)
        assert "no lm_head.weight" in model.info()["notes"][0]
    with load("generate") as model:
        assert "notes" not in model.info()


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"vocab_size": 81}, "vocab_size and hidden_size ask for"),
        ({"num_attention_heads": 8}, "8 heads of 8 don't fit q_proj"),
        ({"num_key_value_heads": 4}, "4 heads of 8 don't fit k_proj"),
        ({"num_key_value_heads": 3}, "must be a multiple of num_key_value_heads"),
        ({"intermediate_size": 45}, "intermediate_size is 45, but the weights have 44"),
        ({"hidden_act": "mish"}, "hidden_act"),
        ({"head_dim": 7}, "head_dim must be even"),
        ({"rope_parameters": {"rope_type": "spiral"}}, "rope_type 'spiral' is not known"),
        ({"rope_parameters": {"rope_type": "linear"}}, "linear needs factor above 0"),
        ({"rope_parameters": {"rope_type": "linear", "factor": "2"}}, "factor above 0.*'2'"),
        ({"rope_parameters": {"rope_theta": -1}}, "needs rope_theta above 0"),
        (
            {"rope_parameters": {"rope_type": "longrope", "short_factor": [1], "long_factor": [1]}},
            "longrope needs short_factor, 4 numbers above 0",
        ),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor is 0.5"),
        ({"rope_parameters": {"full_attention": {}}}, "each type of layer"),
        ({"rope_parameters": [1]}, "rope_parameters must be an object"),
    ],
)
def test_refused(tmp_path: Path, changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(trine.ModelError, match=complaint):
        load("generate", edited(tmp_path, "generate", **changes))
