# SPDX-License-Identifier: Apache-2.0
"""`Generator` against transformers' generate() in float32: greedy token for token, and draws."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tiny
import tiny_llama
import torch
from transformers import LogitsProcessorList, PreTrainedModel
from transformers.generation import logits_process as lp

import trine

if TYPE_CHECKING:
    from pathlib import Path

MODELS: list[dict[str, Any]] = [
    {"head": "LlamaForCausalLM"},
    {"head": "LlamaForCausalLM", "num_key_value_heads": 1, "attention_bias": True},
    {"head": "LlamaForCausalLM", "num_key_value_heads": 4, "tie_word_embeddings": True},
    {"head": "LlamaForCausalLM", "head_dim": 20, "num_hidden_layers": 4, "mlp_bias": True},
    {"head": "GraniteForCausalLM"},
    {"head": "LlamaForCausalLM", "rope_parameters": {"rope_type": "dynamic", "factor": 4.0}},
    {
        "head": "LlamaForCausalLM",
        "rope_parameters": {
            "rope_type": "longrope",
            "original_max_position_embeddings": 32,
            "short_factor": [1.0, 1.1, 1.3, 1.7],
            "long_factor": [1.5, 3.0, 6.0, 9.0],
        },
    },
    {
        "head": "LlamaForCausalLM",
        "rope_parameters": {
            "rope_type": "yarn",
            "factor": 8.0,
            "original_max_position_embeddings": 32,
        },
    },
]
LENGTHS = (1, 2, 5, 17, 30, 60, 9)


def describe(changes: dict[str, Any]) -> str:
    return ",".join(str(v) for v in changes.values())


def make(folder: Path, seed: int, **changes: Any) -> PreTrainedModel:
    changes = {"eos_token_id": None, "max_position_embeddings": 64} | changes
    rope = {"rope_theta": 10000.0} | changes.pop("rope_parameters", {"rope_type": "default"})
    model = tiny_llama.make_model(changes.pop("head"), seed, rope_parameters=rope, **changes)
    tiny.save(model, folder)
    return model


def prompts_of(seed: int, lengths: Any = LENGTHS) -> list[list[int]]:
    rng = np.random.RandomState(seed)
    return [rng.randint(4, 80, n).tolist() for n in lengths]


def reference(model: PreTrainedModel, ids: list[int], **options: Any) -> list[int]:
    """What transformers generates; a fresh model, because some remember the longest length."""
    fresh = type(model)(model.config).eval()
    fresh.load_state_dict(model.state_dict())
    with torch.inference_mode():
        found = fresh.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            do_sample=False,
            **options,
        )
    return found[0, len(ids) :].tolist()


@pytest.mark.parametrize("changes", MODELS, ids=describe)
def test_greedy(tmp_path: Path, changes: dict[str, Any]) -> None:
    """Alone, together and with a shared beginning; some cross their original length."""
    model = make(tmp_path, 1, **changes)
    prompts = prompts_of(2)
    prompts += [prompts[3] + tail for tail in ([], [5], [6, 7, 8])]
    expected = [reference(model, ids, max_new_tokens=24) for ids in prompts]
    with trine.load(tmp_path, dtype="float32") as loaded:
        together = loaded.generate(prompts, max_new_tokens=24)
        assert [x.tokens for x in together] == expected
        assert {x.finish_reason for x in together} == {"length"}
        for ids, tokens in zip(prompts, expected, strict=True):
            assert loaded.generate(ids, max_new_tokens=24).tokens == tokens
        some = [prompts[i] for i in (3, 7, 8, 9)]
        assert [x.tokens for x in loaded.generate(some, max_new_tokens=24)] == [
            expected[i] for i in (3, 7, 8, 9)
        ]
        pairs = loaded.generate(prompts, max_new_tokens=24, batch_size=2)
        assert [x.tokens for x in pairs] == expected


@pytest.mark.parametrize("penalty", [0.7, 1.3, 5.0])
def test_repetition_penalty(tmp_path: Path, penalty: float) -> None:
    model = make(tmp_path, 3, **MODELS[0])
    with trine.load(tmp_path, dtype="float32") as loaded:
        for ids in prompts_of(4):
            wanted = reference(model, ids, max_new_tokens=30, repetition_penalty=penalty)
            got = loaded.generate(ids, max_new_tokens=30, repetition_penalty=penalty)
            assert got.tokens == wanted


@pytest.mark.parametrize("least", [0, 6])
@pytest.mark.parametrize("where", ["config.json", "generation_config.json"])
def test_end_tokens(tmp_path: Path, where: str, least: int) -> None:
    """Several, from either file; the one that came is the last token."""
    model = make(tmp_path, 5, **MODELS[0])
    ends = list(range(4, 80, 5))
    path = tmp_path / where
    config = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(config | {"eos_token_id": ends}))
    reasons = set()
    with trine.load(tmp_path, dtype="float32") as loaded:
        assert loaded.eos_token_ids == tuple(ends)
        for ids in prompts_of(6):
            options = {"max_new_tokens": 12, "min_new_tokens": least}
            wanted = reference(model, ids, eos_token_id=ends, pad_token_id=0, **options)
            got = loaded.generate(ids, **options)
            assert got.tokens == wanted
            assert (got.tokens[-1] in ends) == (got.finish_reason == "stop")
            reasons.add(got.finish_reason)
    assert "stop" in reasons


def test_log_probabilities(tmp_path: Path) -> None:
    model = make(tmp_path, 7, **MODELS[0])
    with trine.load(tmp_path, dtype="float32") as loaded:
        for ids in prompts_of(8):
            found = loaded.generate(ids, max_new_tokens=6, logprobs=5, repetition_penalty=2.0)
            whole = torch.tensor([ids + found.tokens])
            with torch.inference_mode():
                logits = model(whole).logits[0, len(ids) - 1 : -1]
            wanted = torch.log_softmax(logits, -1)
            for row, entry in zip(wanted, found.logprobs, strict=True):
                assert entry["logprob"] == pytest.approx(float(row[entry["token"]]), abs=1e-4)
                assert [x["token"] for x in entry["top"]] == row.topk(5).indices.tolist()


DRAWS: list[dict[str, Any]] = [
    {"temperature": 1.0},
    {"temperature": 0.4},
    {"temperature": 2.0, "top_k": 5},
    {"temperature": 1.5, "top_p": 0.7},
    {"temperature": 1.5, "min_p": 0.2},
    {"temperature": 1.5, "top_k": 12, "top_p": 0.8, "min_p": 0.05, "repetition_penalty": 1.5},
    {"temperature": 1.0, "top_p": 0.01},
    {"temperature": 1.0, "top_k": 1},
]


def warped(logits: torch.Tensor, ids: list[int], o: dict[str, Any]) -> np.ndarray:
    """Probabilities of the next token by transformers' processors, in its order."""
    chain = LogitsProcessorList()
    if "repetition_penalty" in o:
        chain.append(lp.RepetitionPenaltyLogitsProcessor(o["repetition_penalty"]))
    chain.append(lp.TemperatureLogitsWarper(o["temperature"]))
    if "top_k" in o:
        chain.append(lp.TopKLogitsWarper(o["top_k"]))
    if "top_p" in o:
        chain.append(lp.TopPLogitsWarper(o["top_p"]))
    if "min_p" in o:
        chain.append(lp.MinPLogitsWarper(o["min_p"]))
    return torch.softmax(chain(torch.tensor([ids]), logits)[0].double(), -1).numpy()


@pytest.mark.parametrize("options", DRAWS, ids=describe)
def test_draws(tmp_path: Path, options: dict[str, Any]) -> None:
    """Frequencies of 4000 draws: within five deviations of transformers' probabilities."""
    count = 4000
    model = make(tmp_path, 9, **MODELS[0])
    ids = prompts_of(10, (7,))[0]
    with torch.inference_mode():
        wanted = warped(model(torch.tensor([ids])).logits[:, -1], ids, options)
    with trine.load(tmp_path, dtype="float32") as loaded:
        found = loaded.generate([ids] * count, max_new_tokens=1, seed=1, **options)
    counts = np.bincount([x.tokens[0] for x in found], minlength=80)
    assert not counts[wanted == 0].any()
    deviation = np.sqrt(count * wanted * (1 - wanted)) + 1e-9
    assert (np.abs(counts - count * wanted) <= 5 * deviation + 1e-6).all()


def test_draws_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    make(tmp_path, 11, **MODELS[0])
    prompts = prompts_of(12)
    options: dict[str, Any] = {"temperature": 1.2, "seed": 7, "max_new_tokens": 20, "logprobs": 3}
    with trine.load(tmp_path, dtype="float32") as loaded:
        alone = [loaded.generate(ids, **options) for ids in prompts]
        assert loaded.generate(prompts, **options) == alone
        assert loaded.generate(prompts[::-1], **options) == alone[::-1]
    with trine.load(tmp_path, threads=1, dtype="float32") as loaded:
        assert loaded.generate(prompts, **options) == alone
