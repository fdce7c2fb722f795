# SPDX-License-Identifier: Apache-2.0
"""GGUF files of the reference package against transformers' own reader of them, bit for bit."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import sentencepiece as spm
import torch
from gguf import GGMLQuantizationType as Kind
from transformers import GraniteConfig, GraniteForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from trine import gguf as reader

CORPUS = (Path(__file__).parents[1] / "golden" / "corpus256.txt").read_text().splitlines()
KINDS = [
    Kind.F32,
    Kind.F16,
    Kind.BF16,
    Kind.Q4_0,
    Kind.Q4_1,
    Kind.Q5_0,
    Kind.Q5_1,
    Kind.Q8_0,
    Kind.Q4_K,
    Kind.Q5_K,
    Kind.Q6_K,
]
SIZES: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rope_theta": 5e5,
}


def random_rows(rng: np.random.Generator, kind: Kind, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers of a type as they lie in the file, with small scales."""
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    plain = rng.standard_normal(shape).astype(np.float32)
    if kind in (Kind.F32, Kind.F16, Kind.BF16):
        return gguf.quants.quantize(plain, kind)
    if kind not in (Kind.Q4_K, Kind.Q5_K, Kind.Q6_K):
        return gguf.quants.quantize(plain, kind)
    raw = rng.integers(0, 256, (shape[0], shape[1] // elements, size), np.uint8)
    for at in [208] if kind == Kind.Q6_K else [0, 2]:
        raw[:, :, at + 1] = raw[:, :, at + 1] & 0x03 | 0x18
    return raw.reshape(shape[0], -1)


def permuted(rows: np.ndarray, heads: int) -> np.ndarray:
    """What llama.cpp's converter does to q and k."""
    split = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return split.swapaxes(1, 2).reshape(rows.shape)


def write(path: Path, model: torch.nn.Module, arch: gguf.MODEL_ARCH, seed: int) -> dict[str, Any]:
    """Write a model with random numbers of random types; returns what transformers should have."""
    rng, config = np.random.default_rng(seed), model.config
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[arch])
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(SIZES["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    if arch == gguf.MODEL_ARCH.GRANITE:
        writer.add_attention_scale(config.attention_multiplier)
        writer.add_embedding_scale(config.embedding_multiplier)
        writer.add_residual_scale(config.residual_multiplier)
        writer.add_logit_scale(config.logits_scaling)
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    expected = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        kind = Kind.F32 if tensor.dim() == 1 else KINDS[rng.integers(len(KINDS))]
        raw = random_rows(rng, kind, tuple(tensor.shape))
        floats = gguf.quants.dequantize(raw, kind).astype(np.float32).reshape(tensor.shape)
        expected[name] = floats
        for module, heads in (
            ("q_proj", config.num_attention_heads),
            ("k_proj", config.num_key_value_heads),
        ):
            if f".{module}." in name:
                raw = permuted(raw, heads)
        stored = names.get_name(name, try_suffixes=(".weight", ".bias"))
        writer.add_tensor(stored, raw, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return expected


def same(store: Any, expected: dict[str, np.ndarray]) -> None:
    assert sorted(store.names()) == sorted(expected)
    for name, floats in expected.items():
        np.testing.assert_array_equal(
            store.floats(name).view(np.uint32), floats.view(np.uint32), err_msg=name
        )


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_llama(seed: int, tmp_path: Path, *, tied: bool) -> None:
    config = LlamaConfig(**SIZES, tie_word_embeddings=tied, rms_norm_eps=1e-5)
    path = tmp_path / "model.gguf"
    expected = write(path, LlamaForCausalLM(config), gguf.MODEL_ARCH.LLAMA, seed)
    ours = reader.read(path)
    same(ours.store, expected)
    with torch.device("meta"):
        shape = LlamaForCausalLM(config)
    # What from_pretrained(gguf_file=...) reads; that itself asks for accelerate.
    theirs = load_gguf_checkpoint(path, return_tensors=True, model_to_load=shape)
    same(ours.store, {name: np.array(tensor) for name, tensor in theirs["tensors"].items()})
    for field, value in theirs["config"].items():
        if field in ours.config:
            assert ours.config[field] == pytest.approx(value), field
    assert ours.config["rope_theta"] == SIZES["rope_theta"]
    assert ours.config["head_dim"] == 32


@pytest.mark.parametrize("seed", range(3))
def test_granite(seed: int, tmp_path: Path) -> None:
    """Biases everywhere, and a configuration that transformers takes as it is."""
    multipliers = {
        "attention_multiplier": 0.0078125,
        "embedding_multiplier": 12.0,
        "residual_multiplier": 0.22,
        "logits_scaling": 16.0,
    }
    config = GraniteConfig(
        **SIZES, **multipliers, attention_bias=True, mlp_bias=True, tie_word_embeddings=True
    )
    path = tmp_path / "model.gguf"
    expected = write(path, GraniteForCausalLM(config), gguf.MODEL_ARCH.GRANITE, seed)
    ours = reader.read(path)
    same(ours.store, expected)
    assert {k: ours.config[k] for k in multipliers} == multipliers
    assert ours.config["attention_bias"]
    assert ours.config["mlp_bias"]
    fields = {k: v for k, v in ours.config.items() if k != "architectures"}
    built = GraniteForCausalLM(GraniteConfig(**fields))
    state = {n: torch.from_numpy(ours.store.floats(n)) for n in ours.store.names()}
    missing, unexpected = built.load_state_dict(state, strict=False)
    assert not unexpected
    assert missing in ([], ["lm_head.weight"])


def random_texts(seed: int) -> list[str]:
    rng = random.Random(seed)
    parts = [
        *"aeé 模型🎉\u200d\u0301\n\t\r٣Ⅷ½0123-_'",
        "  ",
        "the ",
        "ing",
        " of",
        "\u00a0",
        "\ufeff",
    ]
    made = ["".join(rng.choices(parts, k=rng.randrange(40))) for _ in range(2000)]
    return [*CORPUS, *made]


@pytest.mark.parametrize("prefix", [True, False])
def test_sentence_piece(tmp_path: Path, *, prefix: bool) -> None:
    trained = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=trained,
        vocab_size=2000,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=prefix,
        user_defined_symbols=["<tool>"],
    )
    words = spm.SentencePieceProcessor(model_proto=trained.getvalue())
    count = words.vocab_size()
    kinds = [1] * count
    for index in range(count):
        if words.is_unknown(index):
            kinds[index] = 2
        elif words.is_control(index):
            kinds[index] = 3
        elif words.id_to_piece(index) == "<tool>":
            kinds[index] = 4
        elif words.is_byte(index):
            kinds[index] = 6
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in (
        ("block_count", 1),
        ("context_length", 64),
        ("embedding_length", 32),
        ("feed_forward_length", 32),
        ("attention.head_count", 4),
    ):
        writer.add_uint32(f"llama.{key}", value)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([words.id_to_piece(i) for i in range(count)])
    writer.add_token_scores([words.get_score(i) for i in range(count)])
    writer.add_token_types(kinds)
    writer.add_bool("tokenizer.ggml.add_space_prefix", prefix)
    writer.add_tensor("token_embd.weight", np.zeros((count, 32), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    backend = reader.read(path).tokenizer.encoder().backend
    for text in random_texts(1):
        ids = backend.encode(text, add_special_tokens=False).ids
        assert ids == words.encode(text), text
        assert backend.decode(ids) == words.decode(ids), text
