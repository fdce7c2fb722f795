# SPDX-License-Identifier: Apache-2.0
"""A configuration that cannot be: the error names the file and the field."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from safetensors.numpy import load_file, save_file

import trine

if TYPE_CHECKING:
    from collections.abc import Callable

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
MPNET, DEBERTA, LLAMA = (GOLDEN / "examples" / name for name in ("tag", "ner", "chat"))
CLASSIFIER = GOLDEN / "examples" / "classify"


@pytest.fixture
def changed(tmp_path: Path) -> Callable[..., Path]:
    """`changed(folder, **fields)`: a copy whose config.json has other fields."""

    def copy(folder: Path, **fields: Any) -> Path:
        for file in folder.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        config = json.loads((folder / "config.json").read_text()) | fields
        (tmp_path / "config.json").write_text(json.dumps(config))
        return tmp_path

    return copy


def refused(folder: Path, text: str) -> None:
    wanted = "^" + re.escape(f"{folder / 'config.json'}: {text}")
    with pytest.raises(trine.ModelError, match=wanted):
        trine.load(folder, threads=1, cache=False)


@pytest.mark.parametrize("source", [MPNET, DEBERTA, LLAMA], ids=lambda folder: folder.name)
@pytest.mark.parametrize(
    "field",
    [
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "max_position_embeddings",
    ],
)
@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (0, "must be positive, but is 0"),
        (-4, "must be positive, but is -4"),
        (10**12, "is out of range: 1000000000000"),
        ("x", "must be int, but is 'x'"),
    ],
)
def test_sizes(
    changed: Callable[..., Path], source: Path, field: str, value: Any, complaint: str
) -> None:
    refused(changed(source, **{field: value}), f"{field} {complaint}")


@pytest.mark.parametrize(
    ("source", "fields", "complaint"),
    [
        (LLAMA, {"head_dim": -2}, "head_dim must be 0 or more, but is -2"),
        (LLAMA, {"num_key_value_heads": -1}, "num_key_value_heads must be 0 or more, but is -1"),
        (LLAMA, {"rms_norm_eps": -1.0}, "rms_norm_eps must be 0 or more, but is -1.0"),
        (MPNET, {"layer_norm_eps": float("nan")}, "layer_norm_eps is out of range: nan"),
        (MPNET, {"num_attention_heads": 1}, "num_attention_heads is 1, but mpnet.encoder.relati"),
        (LLAMA, {"rope_scaling": {"rope_type": ["x"]}}, "rope_type ['x'] is not known"),
        (
            LLAMA,
            {"rope_scaling": {"rope_type": "dynamic", "factor": "x"}},
            "rope_parameters: dynamic needs factor above 0, but it is 'x'",
        ),
        (
            LLAMA,
            {"rope_scaling": {"rope_type": "linear", "factor": float("inf")}},
            "rope_parameters: linear needs factor above 0, but it is inf",
        ),
        (
            LLAMA,
            {"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "rope_theta": 1}},
            "rope_parameters: yarn needs a rope_theta other than 1",
        ),
        (CLASSIFIER, {"id2label": {}}, "id2label has no labels"),
        (CLASSIFIER, {"id2label": ["a", "b"]}, "id2label must be an object, not ['a', 'b']"),
        (CLASSIFIER, {"label2id": ["a", "b"]}, "label2id must be an object, not ['a', 'b']"),
        (CLASSIFIER, {"problem_type": "ranking"}, "problem_type 'ranking' is not known"),
        (CLASSIFIER, {"problem_type": ["regression"]}, "problem_type ['regression'] is not known"),
        (MPNET, {"id2label": {}}, "id2label has no labels"),
    ],
)
def test_fields(
    changed: Callable[..., Path], source: Path, fields: dict[str, Any], complaint: str
) -> None:
    refused(changed(source, **fields), complaint)


def test_multipliers_of_granite(changed: Callable[..., Path]) -> None:
    fields = {"architectures": ["GraniteForCausalLM"], "model_type": "granite"}
    refused(changed(LLAMA, **fields, logits_scaling=0), "logits_scaling must not be 0")


def test_a_cut_of_vectors_to_nothing(changed: Callable[..., Path]) -> None:
    kind = "sentence_transformers.models."
    folder = changed(MPNET)
    listing = [{"path": "", "type": f"{kind}Transformer"}, {"path": "1", "type": f"{kind}Pooling"}]
    (folder / "modules.json").write_text(json.dumps(listing))
    (folder / "1").mkdir()
    (folder / "1" / "config.json").write_text("{}")
    (folder / "config_sentence_transformers.json").write_text('{"truncate_dim": 0}')
    with pytest.raises(trine.ModelError, match=r"transformers\.json: truncate_dim is 0, expected"):
        trine.load(folder)


def test_an_index_of_nothing(changed: Callable[..., Path]) -> None:
    folder = changed(MPNET)
    (folder / "model.safetensors").unlink()
    index = folder / "model.safetensors.index.json"
    index.write_text('{"metadata": {}, "weight_map": {}}')
    with pytest.raises(trine.ModelError, match=f"^{index}: weight_map names no tensor"):
        trine.load(folder)


def test_an_encoder_that_says_it_is_more(changed: Callable[..., Path]) -> None:
    folder = changed(GOLDEN / "examples" / "fill")
    weights = load_file(folder / "model.safetensors")
    encoder = {name: value for name, value in weights.items() if not name.startswith("lm_head")}
    save_file(encoder, folder / "model.safetensors")
    with pytest.raises(trine.ModelError, match=r"no tensor 'lm_head.*: task='embed' loads the"):
        trine.load(folder)
    with trine.load(folder, task="embed") as model:
        assert model.encode([[0, 5, 2]]).shape == (1, model.dimension)
    del encoder["mpnet.encoder.layer.0.attention.attn.q.weight"]
    save_file(encoder, folder / "model.safetensors")
    with pytest.raises(trine.ModelError, match="no tensor") as caught:
        trine.load(folder)
    assert "task=" not in str(caught.value)
