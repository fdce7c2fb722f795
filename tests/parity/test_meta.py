# SPDX-License-Identifier: Apache-2.0
"""Meta folders beside torch: its reader and writer, Meta's arithmetic, tiktoken, SentencePiece."""

from __future__ import annotations

import base64
import io
import itertools
import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import sentencepiece
import tiktoken
import tiny
import tiny_llama
import torch
from compare import HERE, assert_outputs
from safetensors.torch import load_file
from transformers import LlamaForCausalLM
from unicode_texts import texts

import trine
from trine import bpe, meta_tokenizer
from trine.convert import convert

if TYPE_CHECKING:
    from pathlib import Path

State = dict[str, torch.Tensor]

# Float32 against float32.
TOLERANCE = 1e-4
SETTINGS: list[dict[str, Any]] = [
    {},
    {"attention_bias": True, "mlp_bias": True},
    {"num_key_value_heads": 1, "attention_bias": True, "tie_word_embeddings": True},
    {"num_key_value_heads": 4, "intermediate_size": 300, "rms_norm_eps": 1e-6},
    {"head_dim": 12, "mlp_bias": True},
]


def interleaved(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of heads whose halves form pairs, as rows whose neighbours do."""
    shape = rows.shape
    return rows.reshape(heads, 2, shape[0] // heads // 2, -1).transpose(1, 2).reshape(shape)


def meta_logits(state: State, params: dict[str, Any], ids: torch.Tensor) -> torch.Tensor:
    """Logits [T, vocab] of one sequence, by the arithmetic of Meta's own model.py."""
    heads, kv_heads = params["n_heads"], params["n_kv_heads"]
    size = state["layers.0.attention.wq.weight"].shape[0] // heads
    frequencies = params["rope_theta"] ** -(torch.arange(0, size, 2).double() / size)
    angles = torch.outer(torch.arange(len(ids)).double(), frequencies)
    turns = torch.polar(torch.ones_like(angles), angles)[:, None]

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return torch.nn.functional.linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return torch.nn.functional.rms_norm(
            x, x.shape[-1:], state[f"{name}.weight"], params["norm_eps"]
        )

    def rotate(x: torch.Tensor) -> torch.Tensor:
        pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
        return torch.view_as_real(pairs * turns).flatten(2)

    x = state["tok_embeddings.weight"][ids]
    mask = torch.full((len(ids), len(ids)), -math.inf, dtype=x.dtype).triu(1)
    for layer in range(params["n_layers"]):
        w = f"layers.{layer}"
        h = norm(x, f"{w}.attention_norm")
        q, k, v = (linear(h, f"{w}.attention.w{name}").unflatten(-1, (-1, size)) for name in "qkv")
        k, v = (y.repeat_interleave(heads // kv_heads, 1).transpose(0, 1) for y in (rotate(k), v))
        scores = rotate(q).transpose(0, 1) @ k.transpose(1, 2) / math.sqrt(size) + mask
        h = (scores.softmax(-1) @ v).transpose(0, 1).flatten(1)
        x = x + linear(h, f"{w}.attention.wo")
        h = norm(x, f"{w}.ffn_norm")
        up = torch.nn.functional.silu(linear(h, f"{w}.feed_forward.w1"))
        x = x + linear(up * linear(h, f"{w}.feed_forward.w3"), f"{w}.feed_forward.w2")
    return linear(norm(x, "norm"), "output")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_meta_s_arithmetic(tmp_path: Path, settings: dict[str, Any], dtype: torch.dtype) -> None:
    """transformers on the one layout, Meta's formulas on the other, and trine on both."""
    model = tiny_llama.make_model("LlamaForCausalLM", 5, **settings).to(dtype)
    source, folder = tiny.save(model, tmp_path / "hf"), tmp_path / "meta"
    convert(source, folder, to="meta")
    state = torch.load(folder / "consolidated.00.pth", weights_only=True, mmap=True)
    params = json.loads((folder / "params.json").read_text())
    exact = {name: value.double() for name, value in state.items()}
    ids = torch.tensor([5, 9, 33, 2, 70, 41, 12, 8, 1, 77, 30])
    want = {"logits": meta_logits(exact, params, ids).float().numpy()[None]}
    inputs = ids.numpy()[None]
    model = LlamaForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    reference = tiny_llama.reference(model, inputs, np.ones_like(inputs))
    assert_outputs(reference, want, TOLERANCE)
    (folder / "config.json").unlink()
    for place in (source, folder):
        with trine.load(place, dtype="float32", device="cpu") as loaded:
            assert_outputs(loaded.forward(inputs), want, TOLERANCE)


def test_tensors_of_the_written_file(tmp_path: Path) -> None:
    """torch.load gives what torch makes of Hugging Face's tensors, biases included."""
    model = tiny_llama.make_model("LlamaForCausalLM", 6, attention_bias=True, mlp_bias=True)
    source = tiny.save(model, tmp_path / "hf")
    convert(source, tmp_path / "meta", to="meta")
    state = torch.load(tmp_path / "meta" / "consolidated.00.pth", weights_only=True)
    stored = load_file(source / "model.safetensors")
    names = {"q": (interleaved, 4), "k": (interleaved, 2), "v": (None, 0), "o": (None, 0)}
    for layer in range(2):
        for kind in ("weight", "bias"):
            for name, (move, heads) in names.items():
                want = stored[f"model.layers.{layer}.self_attn.{name}_proj.{kind}"]
                want = move(want, heads) if move else want
                assert torch.equal(state[f"layers.{layer}.attention.w{name}.{kind}"], want)
            for name, other in (("w1", "gate"), ("w2", "down"), ("w3", "up")):
                want = stored[f"model.layers.{layer}.mlp.{other}_proj.{kind}"]
                assert torch.equal(state[f"layers.{layer}.feed_forward.{name}.{kind}"], want)
    assert len(state) == len(stored)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("count", [1, 2])
def test_torch_s_own_files(tmp_path: Path, count: int, legacy: bool) -> None:
    """Shards as torch.save writes them: views of one storage, a tied table, old and new format."""
    model = tiny_llama.make_model(
        "LlamaForCausalLM", 7, attention_bias=True, tie_word_embeddings=True
    )
    source, folder = tiny.save(model, tmp_path / "hf"), tmp_path / "meta"
    convert(source, folder, to="meta")
    state = torch.load(folder / "consolidated.00.pth", weights_only=True)
    rows = {"wq", "wk", "wv", "w1", "w3", "tok_embeddings", "output"}
    for shard in range(count):
        cut: State = {}
        for name, value in state.items():
            module, kind = name.split(".")[-2:]
            by_columns = module in ("wo", "w2") and kind == "weight"
            axis = 0 if module in rows else 1 if by_columns else None
            cut[name] = value if axis is None else value.chunk(count, axis)[shard]
        cut["output.weight"] = cut["tok_embeddings.weight"]
        torch.save(
            cut,
            folder / f"consolidated.{shard:02}.pth",
            _use_new_zipfile_serialization=not legacy,
        )
    ids, mask = tiny_llama.make_inputs((1, 20, 7), 80, 3)
    expected = tiny_llama.reference(model, ids, mask)
    with trine.load(folder, dtype="float32", device="cpu") as loaded:
        assert_outputs(loaded.forward(ids, mask), expected, TOLERANCE)
    convert(folder, tmp_path / "back", to="hf")
    back = load_file(tmp_path / "back" / "model.safetensors")
    assert back.keys() == load_file(source / "model.safetensors").keys()


# Tokenizers -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corpus() -> list[str]:
    lines = (HERE / "corpus256.txt").read_text("utf-8").splitlines()
    return [text for text in texts(1500) if text] + lines


def test_tiktoken(tmp_path: Path, corpus: list[str]) -> None:
    """A vocabulary learnt as tiktoken's are: each token is the commonest pair of earlier ones."""
    words = [[bytes([b]) for b in line.encode()] for line in corpus[-256:]]
    tokens = [bytes([b]) for b in range(256)]
    while len(tokens) < 700:
        pairs: dict[tuple[bytes, bytes], int] = {}
        for word in words:
            for pair in itertools.pairwise(word):
                pairs[pair] = pairs.get(pair, 0) + 1
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        words = [merged(word, best) for word in words]
        if b"".join(best) not in tokens:
            tokens.append(b"".join(best))
    lines = [base64.b64encode(token).decode() + f" {i}\n" for i, token in enumerate(tokens)]
    path = tmp_path / "tokenizer.model"
    path.write_text("".join(lines))
    special = {meta_tokenizer.special_name(i): len(tokens) + i for i in range(256)}
    reference = tiktoken.Encoding(
        "llama3",
        pat_str=bpe.LLAMA3,
        mergeable_ranks={token: i for i, token in enumerate(tokens)},
        special_tokens=special,
    )
    ours = meta_tokenizer.MetaTokenizer(path, vocab_size=1000, limit=100).encoder().backend
    for text in [*corpus, "a<|eot_id|>b <|begin_of_text|>", "x" * 1000, "12345678 1 22 4444"]:
        got = ours.encode(text).ids
        assert got == [len(tokens), *reference.encode(text, allowed_special="all")], repr(text)
        assert ours.decode(got[1:], skip_special_tokens=False) == text


def merged(word: list[bytes], pair: tuple[bytes, bytes]) -> list[bytes]:
    out: list[bytes] = []
    for part in word:
        if out and (out[-1], part) == pair:
            out[-1] += part
        else:
            out.append(part)
    return out


@pytest.mark.parametrize("dummy", [True, False])
def test_sentencepiece(tmp_path: Path, corpus: list[str], dummy: bool) -> None:
    """A vocabulary trained with the settings of Llama 1 and 2."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus[-256:]),
        model_writer=written,
        model_type="bpe",
        vocab_size=900,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=dummy,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        character_coverage=0.99995,
        num_threads=1,
        minloglevel=2,
    )
    path = tmp_path / "tokenizer.model"
    path.write_bytes(written.getvalue())
    reference = sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())
    tokenizer = meta_tokenizer.MetaTokenizer(path, vocab_size=900, limit=100)
    assert tokenizer.ids() == {"bos_token_id": 1, "eos_token_id": 2}
    ours = tokenizer.encoder().backend
    for text in corpus:
        if "\x00" in text or any(piece in text for piece in ("<s>", "</s>", "<unk>")):
            continue  # SentencePiece finds no control pieces in a text, and nothing behind a zero
        assert ours.encode(text).ids == [1, *reference.encode(text)], repr(text)
