# SPDX-License-Identifier: Apache-2.0
"""DeBERTa against transformers in float32: every head, every config field, random sweeps.

What transformers lacks is compared with tests/golden/deberta_reference.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from compare import assert_outputs, relative_error
from deberta_reference import Reference, extend, padded
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

import trine

Made = tuple[PreTrainedModel, Path]
Make = Callable[..., Made]

TOLERANCE = 1e-4  # max|difference| / max|reference| of each output
HEADS = tiny.heads("DebertaV2")
PER_TOKEN = [h for h in HEADS if h.endswith(("MaskedLM", "TokenClassification", "Answering"))]
RAGGED = (1, 300, 3, 33)
ABSOLUTE = {"position_biased_input": True, "max_position_embeddings": 600}
PLAIN = {"position_buckets": -1}  # rows of the table are distances, up to max_relative_positions

# Each changes one thing, or what belongs together.
FIELDS: list[dict[str, Any]] = [
    {},
    {"pos_att_type": "p2c|c2p"},
    {"pos_att_type": "C2P | p2c"},
    {"pos_att_type": ["c2p"]},
    {"pos_att_type": ["p2c"]},
    {"pos_att_type": "c2p"},
    {"pos_att_type": "p2c", "share_att_key": False},
    {"pos_att_type": ["c2p"], "share_att_key": False},
    {"pos_att_type": None},
    {"pos_att_type": []},
    {"pos_att_type": None, "share_att_key": False},
    {"pos_att_type": ["c2p", "p2c", "p2p"]},
    {"relative_attention": False},
    {"relative_attention": False, "pos_att_type": None, **ABSOLUTE},
    {"share_att_key": False},
    PLAIN,
    {**PLAIN, "max_relative_positions": 5},
    {**PLAIN, "max_relative_positions": 700},
    {**PLAIN, "max_relative_positions": 9, "share_att_key": False, "norm_rel_ebd": "none"},
    {"max_relative_positions": 100},
    {"max_relative_positions": 4000},
    {"position_buckets": 4},
    {"position_buckets": 7},
    {"position_buckets": 32, "max_relative_positions": 18},
    {"position_buckets": 256, "max_position_embeddings": 512},
    {"position_buckets": 128, "max_position_embeddings": 512},
    {"norm_rel_ebd": "none"},
    {"norm_rel_ebd": "none | Layer_Norm"},
    ABSOLUTE,
    {"type_vocab_size": 2},
    {"type_vocab_size": 3, **ABSOLUTE},
    {"embedding_size": 20},
    {"embedding_size": 50, "type_vocab_size": 2, **ABSOLUTE},
    {"conv_kernel_size": 1},
    {"conv_kernel_size": 3},
    {"conv_kernel_size": 5, "conv_act": "gelu"},
    {"conv_kernel_size": 3, "conv_groups": 6, "conv_act": "relu"},
    {"conv_kernel_size": 7, "conv_groups": 36},
    {"conv_kernel_size": 3, "num_hidden_layers": 1},
    {"num_hidden_layers": 1},
    {"num_hidden_layers": 4},
    {"num_attention_heads": 1},
    {"num_attention_heads": 36},
    {"hidden_size": 70, "num_attention_heads": 5},
    {"hidden_size": 128, "num_attention_heads": 2},
    {"hidden_size": 128, "num_attention_heads": 2, "attention_head_size": 64},
    {"intermediate_size": 1},
    {"vocab_size": 503},
    {"layer_norm_eps": 1e-3},
    {"pooler_hidden_act": "tanh", "pooler_dropout": 0.5, "cls_dropout": 0.5},
    {"hidden_dropout_prob": 0.9, "attention_probs_dropout_prob": 0.9},
    {"pad_token_id": 3},
    {"legacy": False},
    {"tie_word_embeddings": False},
    {"tie_word_embeddings": False, "embedding_size": 20},
]
ACTIVATIONS = ["gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu", "tanh", "quick_gelu"]


def describe(changes: dict[str, Any]) -> str:
    return ",".join(f"{k}={v}" for k, v in changes.items()) or "defaults"


def inputs_for(
    model: PreTrainedModel, lengths: Sequence[int], seed: int, **options: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids, mask and token types; for multiple choice the rows are grouped by two."""
    ids, mask = tiny.make_inputs(lengths, model.config, seed, literal_pad=False, **options)
    kinds = max(1, model.config.type_vocab_size)
    types = np.random.RandomState(seed).randint(0, kinds, ids.shape) * mask
    if type(model).__name__.endswith("MultipleChoice"):
        return tuple(x.reshape(-1, 2, ids.shape[1]) for x in (ids, mask, types))  # type: ignore[return-value]
    return ids, mask, types


def compare(
    made: Made,
    lengths: Sequence[int] = RAGGED,
    seed: int = 2,
    *,
    tolerance: float = TOLERANCE,
    **options: Any,
) -> None:
    """Load the folder and compare every output that transformers has."""
    model, folder = made
    ids, mask, types = inputs_for(model, lengths, seed, **options)
    expected = tiny.reference(model, ids, mask, types)
    with trine.load(folder, dtype="float32", device="cpu", threads=2) as loaded:
        got = loaded.forward(ids, mask, types)
    assert expected
    assert_outputs(got, expected, tolerance, folder.name)


@pytest.mark.parametrize("changes", FIELDS, ids=describe)
def test_config_field(make: Make, changes: dict[str, Any]) -> None:
    head = (
        "DebertaV2ForSequenceClassification" if "pooler_hidden_act" in changes else "DebertaV2Model"
    )
    if changes.keys() & {"legacy", "tie_word_embeddings", "embedding_size", "pad_token_id"}:
        compare(make("DebertaV2ForMaskedLM", 1, **changes))
    compare(make(head, 1, **changes))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("changes", [{}, {"conv_kernel_size": 3}, ABSOLUTE], ids=describe)
def test_head(make: Make, head: str, changes: dict[str, Any]) -> None:
    compare(make(head, 3, **changes), (1, 600, 3, 33))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(make: Make, name: str) -> None:
    """Tighter than the rest: the kinds of GELU lie only some 5e-4 apart in these outputs."""
    compare(make("DebertaV2Model", 5, hidden_act=name), (1, 30, 7), tolerance=2e-5)
    made = make("DebertaV2ForSequenceClassification", 5, pooler_hidden_act=name, hidden_act="relu")
    compare(made, (1, 30, 7), tolerance=2e-5)


@pytest.mark.parametrize("labels", [1, 2, 7])
@pytest.mark.parametrize("problem", [None, "regression", "multi_label_classification"])
@pytest.mark.parametrize("head", ["Sequence", "Token"])
def test_labels(make: Make, head: str, problem: str | None, labels: int) -> None:
    made = make(f"DebertaV2For{head}Classification", 7, num_labels=labels, problem_type=problem)
    compare(made, (1, 30, 7, 2))


@pytest.mark.parametrize("length", [1, 2, 6, 7, 11, 12, 13, 47, 48, 49, 63, 64, 65, 200, 600])
def test_one_length(make: Make, length: int) -> None:
    compare(make("DebertaV2Model", 9), (length,))


@pytest.mark.parametrize("buckets", [4, 5, 6, 8, 10, 16, 31, 48, 64, 100, 128, 256, 320])
def test_every_bucket(make: Make, buckets: int) -> None:
    """The borders of the buckets, where one rounding more would show."""
    for most in (buckets // 2 + 2, 512):
        compare(
            make(
                "DebertaV2Model",
                11,
                hidden_size=8,
                num_attention_heads=1,
                num_hidden_layers=1,
                position_buckets=buckets,
                max_relative_positions=most,
            ),
            (700,),
        )


@pytest.mark.parametrize("head", PER_TOKEN)
def test_padded_on_the_left(make: Make, head: str) -> None:
    compare(make(head, 13), left=(0, 2, 3))


@pytest.mark.parametrize("head", HEADS)
def test_padded_on_the_left_refused(make: Make, head: str) -> None:
    """Absolute positions would move."""
    model, folder = make(head, 13, **ABSOLUTE)
    ids, mask, _ = inputs_for(model, (3, 9), 2, left=(0,))
    with (
        trine.load(folder, dtype="float32") as loaded,
        pytest.raises(trine.InputError, match="padded on the left"),
    ):
        loaded.forward(ids, mask)


def test_token_types_without_a_table_do_nothing(make: Make) -> None:
    model, folder = make("DebertaV2Model", 15)
    ids, mask, types = inputs_for(model, (3, 9), 2)
    with trine.load(folder, dtype="float32") as loaded:
        plain = loaded.forward(ids, mask)
        typed = loaded.forward(ids, mask, types + mask)
    np.testing.assert_array_equal(plain["last_hidden_state"], typed["last_hidden_state"])


def test_fields_left_out_have_transformers_defaults(make: Make) -> None:
    model, folder = make(
        "DebertaV2ForSequenceClassification",
        17,
        relative_attention=False,
        pos_att_type=None,
        position_buckets=-1,
        norm_rel_ebd="none",
        share_att_key=False,
        position_biased_input=True,
        max_position_embeddings=512,
        layer_norm_eps=1e-7,
    )
    path = folder / "config.json"
    config = json.loads(path.read_text())
    keep = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    keep += ("vocab_size", "model_type", "architectures")
    path.write_text(json.dumps({key: config[key] for key in keep}))
    compare((model, folder), (1, 512, 30))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "changes", [{"conv_kernel_size": 3}, {"share_att_key": False}], ids=describe
)
def test_stored_in_another_type(
    make: Make, tmp_path: Path, dtype: torch.dtype, changes: dict[str, Any]
) -> None:
    model, _ = make("DebertaV2Model", 19, **changes)
    folder = tiny.save(model.to(dtype), tmp_path / "stored")
    compare((model.to(torch.float32), folder))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("prefixed", ["no", "encoder", "head too"])
def test_names_of_old_files(make: Make, head: str, prefixed: str) -> None:
    """``gamma`` and ``beta``, with and without "deberta.", beside tensors of other heads."""
    model, folder = make(head, 21)
    state = load_file(folder / "model.safetensors")
    prefix = "" if prefixed == "no" else "deberta."
    old = {}
    for name, value in state.items():
        bare = name.removeprefix("deberta.")
        kept = bare if bare != name or head == "DebertaV2Model" else None
        new = name if kept is None else prefix + kept
        if prefixed == "head too" and name.startswith(("classifier", "pooler", "qa_outputs")):
            new = prefix + name
        new = new.replace("LayerNorm.weight", "LayerNorm.gamma")
        old[new.replace("LayerNorm.bias", "LayerNorm.beta")] = value
    old["mask_predictions.dense.weight"] = torch.ones(36, 36)
    old[f"{prefix}embeddings.position_ids"] = torch.arange(48)[None]
    old[f"{prefix}embeddings.position_embeddings.weight"] = torch.ones(48, 36)
    save_file(old, folder / "model.safetensors")
    compare((model, folder), (1, 30, 7, 2))


@pytest.mark.parametrize("seed", range(40))
def test_random(make: Make, seed: int) -> None:
    """Everything drawn at once: shapes, fields, lengths, padding side."""
    rng = np.random.RandomState(2000 + seed)

    def one_of(*values: Any) -> Any:
        return values[rng.randint(len(values))]

    heads = int(rng.randint(1, 7))
    hidden = heads * int(rng.randint(2, 40))
    head = HEADS[seed % len(HEADS)]
    config = {
        "num_attention_heads": heads,
        "hidden_size": hidden,
        "intermediate_size": int(rng.randint(1, 200)),
        "num_hidden_layers": int(rng.randint(1, 5)),
        "vocab_size": int(rng.randint(10, 500)),
        "max_position_embeddings": int(rng.randint(20, 601)),
        "max_relative_positions": int(one_of(-1, rng.randint(14, 700))),
        "position_buckets": int(one_of(-1, 4, 10, 24)),
        "pos_att_type": one_of(["p2c", "c2p"], "p2c|c2p", ["c2p"], "p2c", None),
        "share_att_key": one_of(True, False),
        "norm_rel_ebd": one_of("none", "layer_norm"),
        "position_biased_input": one_of(False, False, True),
        "relative_attention": one_of(True, True, True, False),
        "type_vocab_size": one_of(0, 0, 2),
        "conv_kernel_size": one_of(0, 3, 5),
        "conv_groups": one_of(1, heads),
        "conv_act": one_of("tanh", "gelu"),
        "hidden_act": one_of(*ACTIVATIONS),
        "layer_norm_eps": one_of(1e-7, 1e-5, 1e-2),
        "legacy": one_of(True, False),
    }
    if config["legacy"] or "MaskedLM" not in head:
        config["embedding_size"] = one_of(hidden, int(rng.randint(2, 60)))
    made = make(head, seed, **config)
    most = config["max_position_embeddings"] if config["position_biased_input"] else 600
    rows = 2 * int(rng.randint(1, 5))
    lengths = [int(n) for n in rng.randint(1, min(one_of(3, 20, 60, 601), most + 1), rows)]
    can_pad_left = head in PER_TOKEN and not config["position_biased_input"]
    left = np.flatnonzero(rng.rand(rows) < (0.3 if can_pad_left else 0.0)).tolist()
    compare(made, lengths, seed, left=left)


# What transformers lacks -------------------------------------------------------------------------

EMD: list[dict[str, Any]] = [
    {},
    {"conv_kernel_size": 3, "conv_act": "gelu"},
    {"share_att_key": False, "pos_att_type": ["c2p"]},
    {"position_buckets": -1, "max_relative_positions": 64},
    {"num_hidden_layers": 4, "hidden_act": "relu"},
]


def original(make: Make, *, detector: bool = False, **changes: Any) -> tuple[Reference, Path]:
    """A folder as the original's files are: no architectures, no ``legacy``, more tensors."""
    fields = {"max_position_embeddings": 64, "legacy": False} | changes
    model, folder = make("DebertaV2ForMaskedLM", 23, **fields)
    tensors = extend(model, "detect" if detector else "fill")
    save_file(tensors, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    del config["legacy"], config["architectures"]
    (folder / "config.json").write_text(json.dumps(config))
    return Reference(tensors, model.config), folder


@pytest.mark.parametrize("changes", EMD, ids=describe)
def test_reference_is_transformers_where_that_has_it(make: Make, changes: dict[str, Any]) -> None:
    model, _ = make("DebertaV2ForMaskedLM", 25, **changes)
    ids, mask, _ = inputs_for(model, (1, 9, 64), 4)
    mine = padded(lambda x: Reference(model.state_dict(), model.config).states(x)[-1], ids, mask)
    assert (
        relative_error(mine, tiny.reference(model.deberta, ids, mask)["last_hidden_state"]) < 1e-5
    )


@pytest.mark.parametrize("changes", EMD, ids=describe)
def test_enhanced_mask_decoder(make: Make, changes: dict[str, Any]) -> None:
    reference, folder = original(make, **changes)
    ids, mask = tiny.make_inputs((1, 9, 64, 30), reference.config, 6, literal_pad=False)
    with trine.load(folder, task="fill", dtype="float32") as model:
        got = model.forward(ids, mask)
        with pytest.raises(trine.InputError):
            model.forward(np.full((1, 65), 5))
    assert_outputs(got, {"logits": padded(reference.fill, ids, mask)}, TOLERANCE)


def test_new_head_by_itself(make: Make) -> None:
    """``"legacy": false`` in config.json means transformers' head without the decoder."""
    reference, folder = original(make)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"legacy": False}))
    from transformers import DebertaV2ForMaskedLM

    made = DebertaV2ForMaskedLM.from_pretrained(folder).eval(), folder
    ids, mask = tiny.make_inputs((1, 9, 64, 30), reference.config, 6, literal_pad=False)
    expected = tiny.reference(made[0], ids, mask)
    with trine.load(folder, task="fill", dtype="float32") as model:
        assert_outputs(model.forward(ids, mask), expected, TOLERANCE)


@pytest.mark.parametrize("changes", EMD, ids=describe)
def test_replaced_token_detection(make: Make, changes: dict[str, Any]) -> None:
    reference, folder = original(make, detector=True, **changes)
    ids, mask = tiny.make_inputs((1, 9, 300, 30), reference.config, 6, literal_pad=False)
    with trine.load(folder, task="detect", dtype="float32") as model:
        got = model.forward(ids, mask)
    assert_outputs(got, {"logits": padded(reference.detect, ids, mask)}, TOLERANCE)
