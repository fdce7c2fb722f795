# SPDX-License-Identifier: Apache-2.0
"""What is read from sentence-transformers folders, and what is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from trine import ModelError
from trine.sentence_transformers import read

if TYPE_CHECKING:
    from pathlib import Path

OLD = "sentence_transformers.models."
TRANSFORMER = {"idx": 0, "name": "0", "path": "", "type": OLD + "Transformer"}
TANH = "torch.nn.modules.activation.Tanh"


def write(folder: Path, files: dict[str, Any]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def stack(*modules: tuple[str, str, dict[str, Any] | None]) -> dict[str, Any]:
    """Files of a folder whose modules after the transformer are (class, path, config)."""
    files: dict[str, Any] = {
        "modules.json": [TRANSFORMER, *({"type": t, "path": p} for t, p, _ in modules)]
    }
    return files | {f"{p}/config.json": c for _, p, c in modules if c is not None}


POOLING = (OLD + "Pooling", "1_Pooling", {"pooling_mode_mean_tokens": True})


def test_the_usual(tmp_path: Path) -> None:
    config = read(write(tmp_path, stack(POOLING, (OLD + "Normalize", "2_Normalize", None))))
    pooling = {"type": "pooling", "modes": ["mean"], "include_prompt": True}
    assert config.modules == [pooling, {"type": "normalize"}]
    assert config.transformer == ""
    assert config.prompts == {"query": "", "document": ""}
    assert config.similarity == "cosine"
    assert config.weights == []
    assert config.max_seq_length is None


@pytest.mark.parametrize(
    ("config", "modes"),
    [
        ({"pooling_mode_max_tokens": True, "pooling_mode_cls_token": True}, ["cls", "max"]),
        ({"pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False}, ["lasttoken"]),
        ({"pooling_mode_weightedmean_tokens": True}, ["weightedmean"]),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, ["mean_sqrt_len_tokens"]),
        ({"word_embedding_dimension": 3}, ["mean"]),
        ({"pooling_mode": "cls", "pooling_mode_max_tokens": True}, ["cls"]),
        ({"pooling_mode": ["mean", "cls"]}, ["mean", "cls"]),
    ],
)
def test_pooling(tmp_path: Path, config: dict[str, Any], modes: list[str]) -> None:
    found = read(write(tmp_path, stack((OLD + "Pooling", "1_Pooling", config))))
    assert found.modules[0]["modes"] == modes


def test_dense_and_norm(tmp_path: Path) -> None:
    base = "sentence_transformers.base.modules."
    dense = {"in_features": 4, "out_features": 2, "bias": False, "activation_function": TANH}
    square = {"in_features": 2, "out_features": 2, "use_residual": True}
    found = read(
        write(
            tmp_path,
            stack(
                POOLING,
                (base + "dense.Dense", "2_Dense", dense),
                (OLD + "Dropout", "3_Dropout", {"dropout": 0.1}),
                (base + "dense.Dense", "4_Dense", square),
                (OLD + "LayerNorm", "5_LayerNorm", {"dimension": 2}),
            ),
        )
    )
    assert found.modules[1:] == [
        {"type": "dense", "scope": "2_Dense.linear", "bias": False, "activation": "tanh"},
        {
            "type": "dense",
            "scope": "4_Dense.linear",
            "bias": True,
            "activation": "tanh",
            "residual": "identity",
        },
        {"type": "layer_norm", "scope": "5_LayerNorm.norm", "eps": 1e-5},
    ]
    assert found.weights == ["2_Dense", "4_Dense", "5_LayerNorm"]


def test_settings(tmp_path: Path) -> None:
    files = stack(POOLING) | {
        "sentence_bert_config.json": {"max_seq_length": 99, "do_lower_case": True},
        "config_sentence_transformers.json": {
            "prompts": {"query": "find: ", "topic": None},
            "default_prompt_name": "query",
            "similarity_fn_name": "dot",
            "truncate_dim": 8,
        },
    }
    found = read(write(tmp_path, files))
    assert (found.max_seq_length, found.lowercase, found.truncate_dim) == (99, True, 8)
    assert found.prompts == {"query": "find: ", "document": "", "topic": ""}
    assert (found.default_prompt_name, found.similarity) == ("query", "dot")


def test_transformer_in_a_folder_of_its_own(tmp_path: Path) -> None:
    files = stack(POOLING) | {"0_Transformer/sentence_roberta_config.json": {"max_seq_length": 7}}
    files["modules.json"][0] = TRANSFORMER | {"path": "0_Transformer"}
    found = read(write(tmp_path, files))
    assert (found.transformer, found.max_seq_length) == ("0_Transformer", 7)


DENSE = OLD + "Dense"
BAD: list[tuple[dict[str, Any], str]] = [
    ({"modules.json": "{"}, "modules.json: not valid JSON"),
    ({"modules.json": {}}, "modules.json: expected a list"),
    ({"modules.json": []}, "first module must be a Transformer"),
    ({"modules.json": [TRANSFORMER]}, "no Pooling"),
    (stack((OLD + "Pooling", "../p", {})), "leads out of the folder"),
    (stack((OLD + "Pooling", "/p", None)), "leads out of the folder"),
    (stack((OLD + "CNN", "1_CNN", {})), "models.CNN' is not known"),
    (stack(("my_code.Pooling", "1_Pooling", {})), "my_code.Pooling' is not known"),
    (stack((OLD + "Pooling", "1_Pooling", None)), "1_Pooling/config.json: No such file"),
    (stack((OLD + "Pooling", "1_Pooling", {"pooling_mode": "best"})), "pooling_mode is .*best"),
    (stack((OLD + "Pooling", "1_Pooling", {"include_prompt": 1})), "include_prompt is 1"),
    (stack((OLD + "Normalize", "1_N", None), POOLING), "expected one Pooling"),
    (stack(POOLING, POOLING), "expected one Pooling"),
    (stack(POOLING, (OLD + "Transformer", "2", None)), "only known in first place"),
    (
        stack(POOLING, (DENSE, "2", {"activation_function": "os.system"})),
        "'os.system' is not known",
    ),
    (stack(POOLING, (DENSE, "2", {"bias": "yes"})), "2/config.json: bias is 'yes'"),
    (stack(POOLING, (DENSE, "2", {"module_input_name": "token_embeddings"})), "module_input_name"),
    (stack(POOLING) | {"sentence_bert_config.json": {"max_seq_length": "9"}}, "max_seq_length is"),
    (
        stack(POOLING) | {"sentence_bert_config.json": {"transformer_task": "text-generation"}},
        "transformer_task 'text-generation'",
    ),
    (
        stack(POOLING) | {"config_sentence_transformers.json": {"default_prompt_name": "x"}},
        "default_prompt_name 'x'",
    ),
    (
        stack(POOLING) | {"config_sentence_transformers.json": {"prompts": {"x": 3}}},
        "prompts\\['x'\\] is 3",
    ),
]


@pytest.mark.parametrize(("files", "complaint"), BAD, ids=[complaint for _, complaint in BAD])
def test_refused(tmp_path: Path, files: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ModelError, match=complaint) as caught:
        read(write(tmp_path, files))
    assert str(tmp_path) in str(caught.value)
