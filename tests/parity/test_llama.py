# SPDX-License-Identifier: Apache-2.0
"""Llama and Granite against transformers in float32: every head, field, bias and rotary type."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import tiny_llama
import torch
from compare import assert_outputs
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.models.granite import modeling_granite
from transformers.models.llama import modeling_llama

import trine

Made = tuple[PreTrainedModel, Path]
Make = Callable[..., Made]

TOLERANCE = 1e-4
RAGGED = (1, 2, 3, 17, 40, 8)

FIELDS: list[dict[str, Any]] = [
    {},
    {"vocab_size": 7},
    {"vocab_size": 1003},
    {"num_key_value_heads": 4},
    {"num_key_value_heads": 1},
    {"num_key_value_heads": None},
    {"head_dim": 6},
    {"head_dim": 16},
    {"head_dim": 64, "num_key_value_heads": 1},
    {"hidden_size": 36, "num_attention_heads": 3, "num_key_value_heads": 3},
    {"hidden_size": 36, "num_attention_heads": 9, "num_key_value_heads": 3},
    {"hidden_size": 256, "num_attention_heads": 2},
    {"hidden_size": 40, "num_attention_heads": 5, "num_key_value_heads": 1, "head_dim": 10},
    {"num_hidden_layers": 1},
    {"num_hidden_layers": 5},
    {"intermediate_size": 1},
    {"intermediate_size": 17},
    {"intermediate_size": 300},
    {"rms_norm_eps": 1e-12},
    {"rms_norm_eps": 0.1},
    {"hidden_act": "gelu"},
    {"hidden_act": "gelu_pytorch_tanh"},
    {"hidden_act": "relu"},
    {"tie_word_embeddings": True},
    {"tie_word_embeddings": False},
    {"attention_bias": True},
    {"mlp_bias": True},
    {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    {"attention_dropout": 0.5},
    {"rope_theta": 500000.0},
    {"rope_theta": 100.0},
]
GRANITE: list[dict[str, Any]] = [
    {"embedding_multiplier": 12.0},
    {"attention_multiplier": 0.015625},
    {"residual_multiplier": 0.22},
    {"logits_scaling": 8.0},
    {"embedding_multiplier": 1, "attention_multiplier": 1, "residual_multiplier": 1},
]
FACTORS = {"short_factor": [1.0, 1.1, 1.3, 1.7], "long_factor": [1.5, 3.0, 6.0, 9.0]}
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
ROPES: list[dict[str, Any]] = [
    {"rope_type": "default"},
    {"rope_type": "linear", "factor": 2.5},
    {"rope_type": "dynamic", "factor": 2.0},
    {"rope_type": "dynamic", "factor": 4.5},
    {"rope_type": "llama3", "factor": 8.0} | LLAMA3,
    {"rope_type": "llama3", "factor": 32.0} | LLAMA3 | {"high_freq_factor": 2.0},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
    {"rope_type": "yarn", "factor": 2.0, "beta_fast": 4.0, "beta_slow": 0.5, "truncate": False},
    {"rope_type": "yarn", "factor": 16.0, "mscale": 1.0, "mscale_all_dim": 0.7},
    {"rope_type": "yarn", "factor": 4.0, "attention_factor": 1.3},
    {"rope_type": "longrope", "original_max_position_embeddings": 32} | FACTORS,
    {"rope_type": "longrope", "original_max_position_embeddings": 32, "factor": 8.0} | FACTORS,
    {"rope_type": "longrope", "original_max_position_embeddings": 16, "attention_factor": 1.2}
    | FACTORS,
]


def describe(changes: dict[str, Any]) -> str:
    return ",".join(f"{k}={v}" for k, v in changes.items()) or "defaults"


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """`make(head, seed, **config)`: a random tiny model and its folder."""

    def make_model(head: str, seed: int, **config: Any) -> Made:
        model = tiny_llama.make_model(head, seed, **config)
        return model, tiny.save(model, tmp_path / f"{head}-{seed}")

    return make_model


def edit_config(folder: Path, **changes: Any) -> None:
    """Write fields into config.json; None takes one out."""
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    path = folder / "model.safetensors"
    state = load_file(path)
    change(state)
    save_file(state, path, metadata={"format": "pt"})


def check(folder: Path, expected: dict[str, np.ndarray], ids: np.ndarray, mask: Any) -> dict:
    """Load the folder, compare every output; returns `info()`."""
    assert expected
    with trine.load(folder, dtype="float32", device="cpu") as loaded:
        assert_outputs(loaded.forward(ids, mask), expected, TOLERANCE, folder.name)
        return loaded.info()


def compare(made: Made, seed: int = 2, lengths: Any = RAGGED, **options: Any) -> dict:
    model, folder = made
    ids, mask = tiny_llama.make_inputs(lengths, model.config.vocab_size, seed, **options)
    return check(folder, tiny_llama.reference(model, ids, mask), ids, mask)


def test_every_class_is_known() -> None:
    for module in (modeling_llama, modeling_granite):
        names = {n for n in module.__all__ if "PreTrained" not in n}
        assert names <= set(tiny_llama.HEADS)


@pytest.mark.parametrize("changes", FIELDS, ids=describe)
@pytest.mark.parametrize("head", tiny_llama.HEADS)
def test_config_field(make: Make, head: str, changes: dict[str, Any]) -> None:
    compare(make(head, 1, **changes))


@pytest.mark.parametrize("changes", GRANITE, ids=describe)
def test_granite_multipliers(make: Make, changes: dict[str, Any]) -> None:
    compare(make("GraniteForCausalLM", 2, **changes))


def test_multipliers_are_granite_s_alone(make: Make) -> None:
    model, folder = make("LlamaForCausalLM", 3)
    edit_config(folder, embedding_multiplier=3.0, logits_scaling=4.0, attention_multiplier=9.0)
    compare((model, folder))


# Biases ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", itertools.product([False, True], repeat=2))
@pytest.mark.parametrize(
    "kept", ["", "q", "k", "v", "o", "qk", "qv", "qkvo", "gate", "up", "down", "gateup", "q,down"]
)
def test_biases_by_presence(make: Make, flags: tuple[bool, bool], kept: str) -> None:
    """Some linears with a bias and some without, whatever the configuration says."""
    model, folder = make("LlamaForCausalLM", 4, attention_bias=True, mlp_bias=True)
    names = [n for n in ("gate", "up", "down") if n in kept]
    names += [
        n for n in "qkvo" if n in kept.replace("gate", "").replace("up", "").replace("down", "")
    ]

    def change(state: dict[str, torch.Tensor]) -> None:
        for name in [n for n in state if n.endswith("bias")]:
            if not any(f".{n}_proj." in name for n in names):
                del state[name]
                model.get_parameter(name).data.zero_()

    edit_weights(folder, change)
    edit_config(folder, attention_bias=flags[0], mlp_bias=flags[1])
    compare((model, folder))


def test_a_bias_in_some_layers(make: Make) -> None:
    model, folder = make("LlamaForCausalLM", 5, attention_bias=True)
    name = "model.layers.1.self_attn.v_proj.bias"
    edit_weights(folder, lambda state: state.__delitem__(name))
    model.get_parameter(name).data.zero_()
    compare((model, folder))


# Rotary positions -----------------------------------------------------------------------------


def spell(folder: Path, parameters: dict[str, Any], spelling: str) -> None:
    """Write rotary parameters as transformers 5 or 4 or 4's first releases do."""
    theta = parameters.get("rope_theta", 10000.0)
    rest = {k: v for k, v in parameters.items() if k != "rope_theta"}
    if spelling == "5":
        edit_config(folder, rope_parameters=rest | {"rope_theta": theta}, rope_theta=None)
        return
    if spelling == "first":
        rest["type"] = rest.pop("rope_type")
    edit_config(folder, rope_parameters=None, rope_theta=theta, rope_scaling=rest)


@pytest.mark.parametrize("spelling", ["5", "4", "first"])
@pytest.mark.parametrize("rope", ROPES, ids=describe)
@pytest.mark.parametrize("theta", [10000.0, 123456.0])
def test_rotary(make: Make, rope: dict[str, Any], theta: float, spelling: str) -> None:
    """Sequences within and far beyond the original length, each by itself the reference."""
    rope = rope | {"rope_theta": theta}
    model, folder = make("LlamaForCausalLM", 6, rope_parameters=dict(rope))
    spell(folder, rope, spelling)
    ids, mask = tiny_llama.make_inputs((1, 20, 33, 64, 65, 200), 80, 7)
    check(folder, tiny_llama.reference_rows(model, ids, mask), ids, mask)


@pytest.mark.parametrize("rope", ROPES, ids=describe)
def test_rotary_of_granite(make: Make, rope: dict[str, Any]) -> None:
    model, folder = make("GraniteForCausalLM", 8, rope_parameters=dict(rope))
    ids, mask = tiny_llama.make_inputs((31, 100), 80, 9)
    check(folder, tiny_llama.reference_rows(model, ids, mask), ids, mask)


@pytest.mark.parametrize("rope", [ROPES[0], ROPES[4], ROPES[6]], ids=describe)
def test_long_positions(make: Make, rope: dict[str, Any]) -> None:
    """The last bit of a frequency shows in thousands of positions."""
    settings = {"max_position_embeddings": 4096, "head_dim": 64, "num_hidden_layers": 1}
    made = make("LlamaForCausalLM", 10, rope_parameters=dict(rope), **settings)
    compare(made, 11, (3000, 5))


def test_original_length_outside(make: Make) -> None:
    """Phi-3 writes the length beside the parameters; that goes first."""
    rope = ROPES[10] | {"rope_theta": 10000.0}
    model, folder = make("LlamaForCausalLM", 12, rope_parameters=dict(rope))
    edit_config(folder, rope_parameters=None, original_max_position_embeddings=32)
    edit_config(folder, rope_scaling=rope | {"original_max_position_embeddings": 48})
    ids, mask = tiny_llama.make_inputs((31, 40, 100), 80, 9)
    check(folder, tiny_llama.reference_rows(model, ids, mask), ids, mask)


# Tied tables ----------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["LlamaForCausalLM", "GraniteForCausalLM"])
def test_tied_without_the_flag(make: Make, head: str) -> None:
    """No lm_head.weight: tied, whatever config.json says, and `info` says why."""
    model, folder = make(head, 13, tie_word_embeddings=True)
    edit_config(folder, tie_word_embeddings=False)
    info = compare((model, folder))
    assert "no lm_head.weight" in info["notes"][0]


def test_tied_with_a_copy(make: Make) -> None:
    model, folder = make("LlamaForCausalLM", 14, tie_word_embeddings=True)

    def copy(state: dict[str, torch.Tensor]) -> None:
        state["lm_head.weight"] = state["model.embed_tokens.weight"].clone()

    edit_weights(folder, copy)
    info = compare((model, folder))
    assert "notes" not in info


def test_tied_but_the_file_differs(make: Make) -> None:
    """As transformers has it: two different tables are not tied."""
    _, folder = make("LlamaForCausalLM", 15, tie_word_embeddings=False)
    edit_config(folder, tie_word_embeddings=True)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    info = compare((model, folder))
    assert "not tied" in info["notes"][0]


# Files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [False, True])
def test_shards(make: Make, tmp_path: Path, tied: bool) -> None:
    model, _ = make("LlamaForCausalLM", 16, tie_word_embeddings=tied)
    folder = tiny.save(model, tmp_path / "stored", max_shard_size=20_000)
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    compare((model, folder))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_stored_in_another_type(make: Make, tmp_path: Path, dtype: torch.dtype) -> None:
    model, _ = make("LlamaForCausalLM", 17)
    folder = tiny.save(model.to(dtype), tmp_path / "stored")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    compare((model, folder))


def test_frequencies_in_the_file(make: Make) -> None:
    """Old checkpoints carry rotary_emb.inv_freq, which nothing reads any more."""
    model, folder = make("LlamaForCausalLM", 18)

    def change(state: dict[str, torch.Tensor]) -> None:
        for i in range(2):
            state[f"model.layers.{i}.self_attn.rotary_emb.inv_freq"] = torch.ones(4)

    edit_weights(folder, change)
    compare((model, folder))


def test_a_backbone_from_a_language_model(make: Make) -> None:
    """`task="embed"` reads the decoder of a LlamaForCausalLM."""
    model, folder = make("LlamaForCausalLM", 19)
    ids, mask = tiny_llama.make_inputs(RAGGED, 80, 20)
    expected = tiny_llama.reference(model.model, ids, mask)
    with trine.load(folder, task="embed", dtype="float32") as loaded:
        got = loaded.forward(ids, mask, outputs=["last_hidden_state"])
    assert_outputs(got, expected, TOLERANCE)


def test_fields_left_out_have_transformers_defaults(make: Make) -> None:
    settings = {"rms_norm_eps": 1e-6, "num_key_value_heads": 4, "max_position_embeddings": 2048}
    model, folder = make("LlamaForCausalLM", 21, **settings)
    path = folder / "config.json"
    keep = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    keep += ("vocab_size", "model_type", "architectures")
    config = json.loads(path.read_text())
    path.write_text(json.dumps({key: config[key] for key in keep}))
    compare((model, folder))


# Classification -------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [1, 2, 7])
@pytest.mark.parametrize("head", ["Sequence", "Token"])
def test_labels(make: Make, head: str, labels: int) -> None:
    compare(make(f"LlamaFor{head}Classification", 22, num_labels=labels))


@pytest.mark.parametrize("head", tiny_llama.HEADS)
def test_padded_on_the_left(make: Make, head: str) -> None:
    compare(make(head, 23), left=range(len(RAGGED)))


def test_padding_ids_at_the_end_of_a_text(make: Make) -> None:
    """The last id that isn't padding decides, as where end-of-text and padding are one token."""
    made = make("LlamaForSequenceClassification", 24)
    ids, mask = tiny_llama.make_inputs((9, 4, 1, 12), 80, 25)
    ids[0, 6:9] = tiny_llama.PAD
    ids[1, 1] = tiny_llama.PAD
    ids[2, 0] = tiny_llama.PAD
    for given in (mask, None):
        check(made[1], tiny_llama.reference(made[0], ids, given), ids, given)


def test_classification_without_a_padding_id(make: Make) -> None:
    model, folder = make("LlamaForSequenceClassification", 26, pad_token_id=None)
    ids, _ = tiny_llama.make_inputs((9,), 80, 27)
    check(folder, tiny_llama.reference(model, ids, None), ids, None)


@pytest.mark.parametrize("seed", range(40))
def test_random(make: Make, seed: int) -> None:
    """Everything drawn at once."""
    rng = np.random.RandomState(3000 + seed)

    def one_of(*values: Any) -> Any:
        return values[rng.randint(len(values))]

    kv = int(rng.randint(1, 5))
    heads = kv * int(rng.randint(1, 5))
    config = {
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "hidden_size": heads * 2 * int(rng.randint(1, 10)),
        "head_dim": one_of(2, 8, 12, 20, 64),
        "intermediate_size": int(rng.randint(1, 200)),
        "num_hidden_layers": int(rng.randint(1, 4)),
        "vocab_size": int(rng.randint(10, 500)),
        "hidden_act": one_of("silu", "silu", "gelu", "relu"),
        "attention_bias": one_of(False, True),
        "mlp_bias": one_of(False, True),
        "tie_word_embeddings": one_of(False, True),
        "rms_norm_eps": one_of(1e-6, 1e-5, 1e-2),
    }
    rope = dict(one_of(*ROPES[:2], *ROPES[4:10]))
    made = make(
        tiny_llama.HEADS[seed % len(tiny_llama.HEADS)], seed, rope_parameters=rope, **config
    )
    lengths = [int(n) for n in rng.randint(1, one_of(3, 20, 60, 201), int(rng.randint(1, 7)))]
    compare(made, seed, lengths, left=np.flatnonzero(rng.rand(len(lengths)) < 0.3).tolist())
