# SPDX-License-Identifier: Apache-2.0
"""`encode` against sentence-transformers on random encoders under every stack of modules."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import tiny_llama
from compare import HERE, assert_outputs, assert_quantized, corpus
from sentence_transformers import SentenceTransformer
from stacks import (
    HIDDEN,
    NORMALIZE,
    STACKS,
    TEXTS,
    Module,
    Stack,
    dense,
    layer_norm,
    pooling,
    write_stack,
)
from transformers import PreTrainedModel

import trine

Make = Callable[..., tuple[PreTrainedModel, Path]]

TOLERANCE = 1e-4
SAMPLE = [*TEXTS, *corpus()[::8]]
MODES = ("cls", "mean", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
ACTIVATIONS = ("activation.Tanh", "activation.GELU", "activation.ReLU", "activation.SiLU")
ACTIVATIONS += ("activation.Sigmoid", "linear.Identity")
FLOAT_STACKS = [name for name, stack in STACKS.items() if "precision" not in stack.encode]


def compare(folder: Path, texts: list[str], **options: Any) -> None:
    """Encode with both and compare."""
    reference = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    expected = reference.encode(texts, show_progress_bar=False, **options)
    with trine.load(folder, dtype="float32", device="cpu") as model:
        got = model.encode(texts, **options)
    assert_outputs({"vectors": got}, {"vectors": expected}, TOLERANCE, str(options))


@pytest.mark.parametrize("name", FLOAT_STACKS)
def test_stack(make: Make, tmp_path: Path, name: str) -> None:
    """The stacks of the goldens on another encoder, with longer texts."""
    config = {"hidden_size": HIDDEN, "num_attention_heads": 2, "num_hidden_layers": 3}
    _, base = make("MPNetModel", 50, tokenizer=True, **config)
    folder = write_stack(STACKS[name], tmp_path / "stack", base=base, seed=9)
    compare(folder, SAMPLE, **STACKS[name].encode)


@pytest.mark.parametrize(
    "name", ["all-modes", "normalize", "plain", "prompt-excluded", "tokenizer-limit"]
)
@pytest.mark.parametrize("cut", [128, None])
def test_stack_on_deberta(make: Make, tmp_path: Path, name: str, cut: int | None) -> None:
    """Without a limit of the tokenizer's, max_position_embeddings is where texts are cut."""
    _, base = make("DebertaV2Model", 52, tokenizer=True, hidden_size=HIDDEN, num_attention_heads=4)
    if cut is None:
        tiny.write_tokenizer_config(base, model_max_length=int(1e30))
    folder = write_stack(STACKS[name], tmp_path / "stack", base=base, seed=9)
    compare(folder, SAMPLE, **STACKS[name].encode)


@pytest.mark.parametrize(
    "modes", [("mean",), ("lasttoken",), ("weightedmean", "lasttoken")], ids=str
)
@pytest.mark.parametrize("side", ["left", "right"])
def test_llama(tmp_path: Path, modes: tuple[str, ...], side: str) -> None:
    """A decoder as an encoder; on whichever side the tokenizer pads, there is no padding here."""
    base = tmp_path / "base"
    tiny.save(tiny_llama.make_model("LlamaModel", 54, vocab_size=380, hidden_size=HIDDEN), base)
    chat = HERE / "examples" / "chat"
    shutil.copyfile(chat / "tokenizer.json", base / "tokenizer.json")
    settings = json.loads((chat / "tokenizer_config.json").read_text())
    settings |= {"padding_side": side, "model_max_length": 64}
    (base / "tokenizer_config.json").write_text(json.dumps(settings))
    stack = Stack((pooling(*modes), NORMALIZE))
    compare(write_stack(stack, tmp_path / "stack", base=base), SAMPLE)


@pytest.mark.parametrize("precision", ["int8", "uint8", "binary", "ubinary"])
def test_precision(tmp_path: Path, precision: str) -> None:
    folder = write_stack(STACKS["mean"], tmp_path / "stack")
    reference = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    floats = reference.encode(SAMPLE, show_progress_bar=False)
    expected = reference.encode(SAMPLE, show_progress_bar=False, precision=precision)
    with trine.load(folder, dtype="float32", device="cpu") as model:
        got = model.encode(SAMPLE, precision=precision)
    unsure = np.abs(floats) < 1e-5 if "binary" in precision else None
    assert_quantized(got, expected, unsure)


def test_encoder_inside_a_language_model(make: Make, tmp_path: Path) -> None:
    """all-mpnet-base-v2's own config says MPNetForMaskedLM: modules.json decides."""
    _, base = make("MPNetForMaskedLM", 51, tokenizer=True, hidden_size=HIDDEN)
    folder = write_stack(STACKS["normalize"], tmp_path / "stack", base=base)
    with trine.load(folder, device="cpu") as model:
        assert isinstance(model, trine.Embedder)
    compare(folder, SAMPLE)


def test_one_text(tmp_path: Path) -> None:
    folder = write_stack(STACKS["prompt-excluded"], tmp_path / "stack")
    reference = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    expected = reference.encode(SAMPLE[3], show_progress_bar=False)
    with trine.load(folder, dtype="float32", device="cpu") as model:
        got = model.encode(SAMPLE[3])
    assert expected.ndim == 1
    assert_outputs({"vector": got}, {"vector": expected}, TOLERANCE)


@pytest.mark.parametrize("limit", [2, 3, 5, 127, 128])
def test_limit(make: Make, tmp_path: Path, limit: int) -> None:
    _, base = make("MPNetModel", 52, tokenizer=True, hidden_size=HIDDEN)
    stack = Stack((pooling("mean"),), max_seq_length=limit)
    compare(write_stack(stack, tmp_path / "stack", base=base), SAMPLE)


def test_cased_tokenizer_told_to_lower(make: Make, tmp_path: Path) -> None:
    """`do_lower_case` in sentence_bert_config.json lowers before any other normalisation."""
    _, base = make("MPNetModel", 53, tokenizer=True, hidden_size=HIDDEN)
    folder = write_stack(STACKS["mean"], tmp_path / "stack", base=base)
    tiny.write_tokenizer_config(folder, do_lower_case=False, model_max_length=128)
    text = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(text.replace('"lowercase":true', '"lowercase":false'))
    compare(folder, SAMPLE)
    limits = folder / "sentence_bert_config.json"
    limits.write_text(limits.read_text().replace("false", "true"))
    compare(folder, SAMPLE)


@pytest.mark.parametrize("seed", range(40))
def test_random(make: Make, tmp_path: Path, seed: int) -> None:
    """Poolings, dense layers, norms, prompts and limits drawn at random."""
    rng = np.random.RandomState(2000 + seed)

    def chance(probability: float) -> bool:
        return bool(rng.rand() < probability)

    heads = int(rng.randint(1, 5))
    width = heads * int(rng.randint(4, 30))
    _, base = make("MPNetModel", seed, tokenizer=True, hidden_size=width, num_attention_heads=heads)
    modes = [MODES[i] for i in rng.permutation(len(MODES))[: rng.choice([1, 1, 2, 3])]]
    modules: list[Module] = [pooling(*modes, width=width, include_prompt=chance(0.5))]
    width *= len(modes)
    for _ in range(rng.randint(3)):
        wider = int(rng.randint(1, 70))
        function = f"torch.nn.modules.{ACTIVATIONS[rng.randint(len(ACTIVATIONS))]}"
        modules.append(dense(width, wider, function, bias=chance(0.6)))
        width = wider
    if chance(0.4):
        modules.append(layer_norm(width))
    if chance(0.6):
        modules.append(NORMALIZE)
    prompts = {"query": "find: ", "topic": "the topic of this text is "} if chance(0.6) else {}
    stack = Stack(
        tuple(modules),
        prompts=prompts,
        default_prompt="topic" if prompts and chance(0.5) else None,
        max_seq_length=int(rng.choice([10, 30, 128])),
    )
    options: dict[str, Any] = {"normalize_embeddings": chance(0.3)}
    if prompts and chance(0.5):
        options["prompt_name"] = "query"
    if chance(0.3):
        options["truncate_dim"] = int(rng.randint(1, width + 1))
    texts = [SAMPLE[i] for i in rng.permutation(len(SAMPLE))[: rng.randint(1, 20)]]
    compare(write_stack(stack, tmp_path / "stack", base=base, seed=seed), texts, **options)
