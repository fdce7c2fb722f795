# SPDX-License-Identifier: Apache-2.0
"""Tiny random DeBERTa checkpoints against transformers and the original (no torch needed)."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from compare import HERE, assert_outputs, read_case

import trine
from trine import _core

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = HERE / "deberta"
# Float32 against float32: sums of a few hundred products in another order, over 2 layers.
TOLERANCE = 2e-5
CLASSES = {
    "choose": "Chooser",
    "classify": "Classifier",
    "classify-multi": "Classifier",
    "detect-original": "Detector",
    "masked-lm": "Filler",
    "masked-lm-new": "Filler",
    "masked-lm-original": "Filler",
    "model": "Embedder",
    "model-absolute": "Embedder",
    "model-c2p": "Embedder",
    "model-grouped": "Embedder",
    "model-p2c": "Embedder",
    "model-v2": "Embedder",
    "question": "Reader",
    "rank": "Classifier",
    "tag": "Tagger",
}
# The original's config.json says nothing of what a checkpoint is for.
TASKS = {"masked-lm-original": "fill", "detect-original": "detect"}


def load(name: str, folder: Path = FOLDER, **options: Any) -> Any:
    return trine.load(folder / name, task=TASKS.get(name), dtype="float32", device="cpu", **options)


def test_every_folder_has_a_class() -> None:
    assert sorted(CLASSES) == sorted(path.name for path in FOLDER.iterdir())


@pytest.mark.parametrize("isa", _core.isas())
@pytest.mark.parametrize("name", CLASSES)
def test_outputs(name: str, isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRINE_ISA", isa)
    inputs, expected = read_case(FOLDER / name)
    with load(name) as model:
        assert type(model).__name__ == CLASSES[name]
        assert model.info()["isa"] == isa
        assert_outputs(model.forward(*inputs), expected, TOLERANCE, f"{name} {isa}")


@pytest.mark.parametrize("name", CLASSES)
def test_each_sequence_alone(name: str) -> None:
    """A sequence gives the same bits alone, in its batch, in another order, on other threads."""
    inputs, _ = read_case(FOLDER / name)
    with load(name, threads=1) as model, load(name, threads=3) as parallel:
        together = model.forward(*inputs)
        again = parallel.forward(*(x[::-1] for x in inputs))
        for output, value in together.items():
            np.testing.assert_array_equal(again[output][::-1], value)
        for row in range(len(inputs[0])):
            alone = model.forward(*(x[row : row + 1] for x in inputs))
            for output, value in alone.items():
                np.testing.assert_array_equal(value, together[output][row : row + 1])


def test_lengths_in_random_batches() -> None:
    """Lengths 1 to 600: bits don't depend on the neighbours."""
    rng = np.random.RandomState(0)
    lengths = [1, 2, 599, 600, *rng.randint(1, 200, 12).tolist()]
    texts = [rng.randint(0, 80, n).tolist() for n in lengths]
    with load("model") as model:
        alone = np.stack([model.encode([text])[0] for text in texts])
        for batch_size in (1, 3, 16):
            order = rng.permutation(len(texts))
            got = model.encode([texts[i] for i in order], batch_size=batch_size)
            np.testing.assert_array_equal(got, alone[order])


def test_any_length_goes_and_texts_are_cut_by_default() -> None:
    with load("model") as model:  # max_position_embeddings is 48
        assert model.forward(np.full((1, 3000), 5))["last_hidden_state"].shape == (1, 3000, 36)
    with load("model-absolute") as model:
        model.forward(np.full((1, 48), 5))
        with pytest.raises(trine.InputError):
            model.forward(np.full((1, 49), 5))
        with pytest.raises(trine.InputError, match="token type"):
            model.forward([[5, 6]], token_type_ids=[[0, 2]])


def test_token_types_matter_only_with_a_table() -> None:
    for name, matter in (("rank", True), ("classify", False)):
        with load(name) as model:
            ids, types = np.full((1, 9), 5), np.arange(9)[None] % 2
            got = [model.forward(ids, token_type_ids=t)["logits"] for t in (types, 0 * types)]
            assert (got[0] != got[1]).any() == matter


def rewrite(folder: Path, **changes: object) -> None:
    """Change config.json; None takes a field away."""
    config = json.loads((folder / "config.json").read_text()) | changes
    config = {key: value for key, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config))


def test_which_masked_lm(tmp_path: Path) -> None:
    """``"legacy": false`` means the new head by itself; left out, the enhanced mask decoder."""
    folder = shutil.copytree(FOLDER / "masked-lm-original", tmp_path / "masked-lm-original")
    inputs, expected = read_case(folder)
    rewrite(folder, legacy=False)
    with load("masked-lm-original", tmp_path) as model:
        alone = model.forward(*inputs)["logits"]
    assert np.abs(alone - expected["logits"]).max() > 0.1
    new = shutil.copytree(FOLDER / "masked-lm-new", tmp_path / "new")
    rewrite(new, legacy=None)
    with pytest.raises(trine.ModelError, match=r"position_embeddings.weight"):
        trine.load(new)  # the decoder needs absolute positions, which transformers doesn't keep


@pytest.mark.parametrize(
    ("name", "changes", "complaint"),
    [
        ("model", {"num_hidden_layers": 3}, r"layer\.2"),
        ("model", {"hidden_size": 40}, "hidden_size|embedding_size"),
        ("model", {"hidden_size": 37}, "multiple of num_attention_heads"),
        ("model", {"num_attention_heads": 0}, "num_attention_heads must be positive"),
        ("model", {"attention_head_size": 7}, "attention_head_size"),
        ("model", {"position_buckets": 16}, r"position_buckets.* \(32, 36\).* \(64, 36\)"),
        ("model", {"max_relative_positions": 17}, "max_relative_positions 17 must exceed"),
        ("model", {"hidden_act": "no_such"}, "hidden_act"),
        ("model", {"pos_att_type": 3}, "pos_att_type"),
        ("model", {"pos_att_type": [1]}, "pos_att_type"),
        ("model", {"position_biased_input": True}, r"embeddings\.position_embeddings\.weight"),
        ("model", {"type_vocab_size": 2}, r"embeddings\.token_type_embeddings\.weight"),
        ("model", {"embedding_size": 20}, "embedding_size"),
        ("model", {"conv_kernel_size": 3}, r"encoder\.conv\.conv\.weight"),
        ("model", {"share_att_key": False}, r"self\.pos_key_proj\."),
        ("model", {"architectures": ["DebertaV2ForMaskedLM"]}, r"cls\.predictions\."),
        (
            "model",
            {"architectures": ["DebertaV2ForSequenceClassification"]},
            r"pooler\.dense\.",
        ),
        ("model", {"architectures": ["DebertaV2ForTokenClassification"]}, r"classifier\."),
        ("model", {"architectures": ["ReplacedTokenDetectionModel"]}, r"mask_predictions\."),
        ("model-v2", {"conv_act": "no_such"}, "conv_act"),
        ("model-v2", {"conv_kernel_size": 4}, "conv_kernel_size must be odd"),
        ("model-grouped", {"conv_groups": 5}, "groups"),
        ("classify", {"pooler_hidden_act": "no_such"}, "pooler_hidden_act"),
        ("classify", {"pooler_hidden_size": 20}, "pooler_hidden_size"),
        ("classify", {"id2label": {"0": "a", "1": "b"}}, "id2label"),
        ("masked-lm-original", {"num_hidden_layers": 1}, "num_hidden_layers"),
    ],
)
def test_broken(tmp_path: Path, name: str, changes: dict[str, object], complaint: str) -> None:
    """A config that doesn't fit the weights is an error at load that names what is wrong."""
    folder = shutil.copytree(FOLDER / name, tmp_path / name)
    rewrite(folder, **changes)
    with pytest.raises(trine.ModelError, match=complaint):
        load(name, tmp_path)
