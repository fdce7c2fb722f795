# SPDX-License-Identifier: Apache-2.0
"""`forward` against transformers in float32: every head, every config field, random sweeps."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from compare import assert_outputs
from safetensors.torch import save_file
from transformers import PreTrainedModel

import trine

Made = tuple[PreTrainedModel, Path]
Make = Callable[..., Made]

# max|difference| / max|reference| of each output.
TOLERANCE = 1e-4
HEADS = tiny.heads()
# Heads that read the first column of a padded batch.
FIRST_TOKEN = [
    h for h in HEADS if h.endswith(("Model", "SequenceClassification", "MultipleChoice"))
]
RAGGED = (1, 2, 3, 17, 40, 8)

# Each changes one thing. The head sizes that follow from some are 1 to 128, odd ones among them.
FIELDS: list[dict[str, Any]] = [
    {},
    {"vocab_size": 5},
    {"vocab_size": 1003},
    {"hidden_size": 35, "num_attention_heads": 5},
    {"hidden_size": 34, "num_attention_heads": 2},
    {"hidden_size": 6, "num_attention_heads": 6},
    {"hidden_size": 12, "num_attention_heads": 4},
    {"hidden_size": 128, "num_attention_heads": 1},
    {"hidden_size": 130, "num_attention_heads": 2},
    {"hidden_size": 192, "num_attention_heads": 12},
    {"hidden_size": 256, "num_attention_heads": 4},
    {"num_attention_heads": 1},
    {"num_attention_heads": 32},
    {"num_hidden_layers": 1},
    {"num_hidden_layers": 5},
    {"intermediate_size": 1},
    {"intermediate_size": 17},
    {"intermediate_size": 300},
    {"max_position_embeddings": 514},
    {"layer_norm_eps": 1e-12},
    {"layer_norm_eps": 0.1},
    {"relative_attention_num_buckets": 33},
    {"relative_attention_num_buckets": 100},
    {"pad_token_id": 0},
    {"pad_token_id": 3},
    {"pad_token_id": None},
    {"bos_token_id": 4, "eos_token_id": 5},
    {"hidden_dropout_prob": 0.9, "attention_probs_dropout_prob": 0.9},
    {"initializer_range": 2.0},
    {"tie_word_embeddings": False},
]
ACTIVATIONS = [
    "gelu",
    "gelu_accurate",
    "gelu_fast",
    "gelu_new",
    "gelu_python",
    "gelu_python_tanh",
    "gelu_pytorch_tanh",
    "linear",
    "quick_gelu",
    "relu",
    "sigmoid",
    "silu",
    "swish",
    "tanh",
]


def describe(changes: dict[str, Any]) -> str:
    return ",".join(f"{k}={v}" for k, v in changes.items()) or "defaults"


def compare(
    made: Made, ids: np.ndarray, mask: np.ndarray | None, *, tolerance: float = TOLERANCE
) -> None:
    """Load the folder and compare every output that transformers has."""
    model, folder = made
    expected = tiny.reference(model, ids, mask)
    with trine.load(folder, dtype="float32", device="cpu") as loaded:
        got = loaded.forward(ids, mask)
    assert expected
    assert_outputs(got, expected, tolerance, folder.name)


def inputs_for(
    made: Made, lengths: Sequence[int], seed: int, **options: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Random inputs; for multiple choice the rows are grouped by two."""
    model, _ = made
    ids, mask = tiny.make_inputs(lengths, model.config, seed, **options)
    if type(model).__name__.endswith("MultipleChoice"):
        return ids.reshape(-1, 2, ids.shape[1]), mask.reshape(-1, 2, ids.shape[1])
    return ids, mask


@pytest.mark.parametrize("changes", FIELDS, ids=describe)
@pytest.mark.parametrize("head", HEADS)
def test_config_field(make: Make, head: str, changes: dict[str, Any]) -> None:
    made = make(head, 1, **changes)
    compare(made, *inputs_for(made, RAGGED, 2))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(make: Make, name: str) -> None:
    """Tighter than the rest: the kinds of GELU lie only some 5e-4 apart in these outputs."""
    made = make("MPNetModel", 3, hidden_act=name)
    compare(made, *inputs_for(made, RAGGED, 4), tolerance=2e-5)


@pytest.mark.parametrize("name", ["relu", "gelu_new"])
def test_language_model_head_ignores_the_activation(make: Make, name: str) -> None:
    """Transformers uses the exact GELU there whatever `hidden_act` says."""
    made = make("MPNetForMaskedLM", 5, hidden_act=name)
    compare(made, *inputs_for(made, RAGGED, 6))


@pytest.mark.parametrize("labels", [1, 2, 7, 40])
@pytest.mark.parametrize("problem", [None, "regression", "multi_label_classification"])
@pytest.mark.parametrize("head", ["Sequence", "Token"])
def test_labels(make: Make, head: str, problem: str | None, labels: int) -> None:
    made = make(f"MPNetFor{head}Classification", 7, num_labels=labels, problem_type=problem)
    compare(made, *inputs_for(made, RAGGED, 8))


@pytest.mark.parametrize("head", HEADS)
def test_long_and_short_together(make: Make, head: str) -> None:
    made = make(head, 9, max_position_embeddings=514)
    compare(made, *inputs_for(made, (1, 200, 512, 64, 129, 5), 10))


@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 31, 33, 63, 64, 65, 127, 128, 129, 200])
def test_one_length(make: Make, length: int) -> None:
    made = make("MPNetModel", 11, max_position_embeddings=514)
    ids, _ = inputs_for(made, (length,), 12, literal_pad=False)
    compare(made, ids, None)


@pytest.mark.parametrize("head", [h for h in HEADS if h not in FIRST_TOKEN])
def test_padded_on_the_left(make: Make, head: str) -> None:
    made = make(head, 13)
    compare(made, *inputs_for(made, RAGGED, 14, left=range(len(RAGGED))))


@pytest.mark.parametrize("head", FIRST_TOKEN)
def test_padded_on_the_left_first_token(make: Make, head: str) -> None:
    """What transformers makes of the first column is made of padding: refused, not imitated."""
    made = make(head, 13)
    ids, mask = inputs_for(made, RAGGED, 14, left=range(len(RAGGED)))
    with (
        trine.load(made[1], dtype="float32", device="cpu") as loaded,
        pytest.raises(trine.InputError, match="padded on the left"),
    ):
        loaded.forward(ids, mask)


def test_without_a_mask_padding_ids_are_attended_to(make: Make) -> None:
    made = make("MPNetModel", 15)
    ids, _ = inputs_for(made, RAGGED, 16)
    compare(made, ids, None)


def test_padding_ids_take_no_position(make: Make) -> None:
    """Literal <pad> ids that are attended to."""
    made = make("MPNetModel", 17, max_position_embeddings=66)
    ids = np.random.RandomState(18).randint(2, 80, (1, 60))
    ids[0, 5:27] = tiny.PAD
    compare(made, ids, np.ones_like(ids))


@pytest.mark.parametrize("fill", [0, 1, 79])
def test_ids_under_the_mask_do_not_matter(make: Make, fill: int) -> None:
    made = make("MPNetModel", 19)
    ids, mask = inputs_for(made, RAGGED, 20)
    ids[mask == 0] = fill
    compare(made, ids, mask)


def test_fields_left_out_have_transformers_defaults(make: Make) -> None:
    """Old checkpoints leave out what is at its default."""
    model, folder = make("MPNetForSequenceClassification", 21, layer_norm_eps=1e-12)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    keep = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    keep += ("vocab_size", "max_position_embeddings", "model_type", "architectures")
    path.write_text(json.dumps({key: config[key] for key in keep}))
    ids, mask = inputs_for((model, folder), RAGGED, 22)
    compare((model, folder), ids, mask)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_stored_in_another_type(make: Make, tmp_path: Path, dtype: torch.dtype) -> None:
    model, _ = make("MPNetModel", 23)
    folder = tiny.save(model.to(dtype), tmp_path / "stored")
    made = model.to(torch.float32), folder
    compare(made, *inputs_for(made, RAGGED, 24))


@pytest.mark.parametrize("head", ["MPNetModel", "MPNetForMaskedLM"])
def test_shards(make: Make, tmp_path: Path, head: str) -> None:
    """Shards with an index."""
    model, _ = make(head, 25)
    folder = tiny.save(model, tmp_path / "stored", max_shard_size=20_000)
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    made = model, folder
    compare(made, *inputs_for(made, RAGGED, 26))


@pytest.mark.parametrize("add_prefix", [False, True])
def test_backbone_prefix(make: Make, add_prefix: bool) -> None:
    """`MPNetModel` reads names with and without the prefix "mpnet.", and skips other heads."""
    model, folder = make("MPNetModel", 27)
    if add_prefix:
        state = {f"mpnet.{name}": value for name, value in model.state_dict().items()}
        state["lm_head.bias"] = torch.zeros(model.config.vocab_size)
        save_file(state, folder / "model.safetensors")
    made = model, folder
    compare(made, *inputs_for(made, RAGGED, 28))


@pytest.mark.parametrize("seed", range(60))
def test_random(make: Make, seed: int) -> None:
    """Everything drawn at once: shapes, sizes, activation, lengths, padding side."""
    rng = np.random.RandomState(1000 + seed)

    def one_of(*values: Any) -> Any:
        return values[rng.randint(len(values))]

    heads = int(rng.randint(1, 9))
    config = {
        "num_attention_heads": heads,
        "hidden_size": heads * int(rng.randint(2, 40)),
        "intermediate_size": int(rng.randint(1, 200)),
        "num_hidden_layers": int(rng.randint(1, 5)),
        "vocab_size": int(rng.randint(10, 500)),
        "max_position_embeddings": int(rng.randint(202, 514)),
        "hidden_act": one_of(*ACTIVATIONS),
        "layer_norm_eps": one_of(1e-12, 1e-5, 1e-2),
        "relative_attention_num_buckets": one_of(32, 48, 64),
        "pad_token_id": one_of(0, 1, 1, 2),
    }
    head = HEADS[seed % len(HEADS)]
    made = make(head, seed, **config)
    rows = 2 * int(rng.randint(1, 5))
    lengths = rng.randint(1, one_of(3, 20, 60, 201), rows)
    # Padding ids other than <pad>'s own take positions: transformers shifts those of the text.
    can_pad_left = head not in FIRST_TOKEN and config["pad_token_id"] == tiny.PAD
    left = np.flatnonzero(rng.rand(rows) < (0.3 if can_pad_left else 0.0))
    compare(made, *inputs_for(made, [int(n) for n in lengths], seed, left=left.tolist()))
