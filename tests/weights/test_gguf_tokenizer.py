# SPDX-License-Identifier: Apache-2.0
"""Tokenizers built from a GGUF file's metadata give the tokens of those they came from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from gguf_files import write
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

import trine
from trine import gguf as reader

HERE = Path(__file__).parent
CORPUS = (HERE.parent / "golden" / "corpus256.txt").read_text().splitlines()


def trained(kind: str) -> Tokenizer:
    """A byte-level BPE with the pre-tokenizer that such a tokenizer.json has."""
    backend = Tokenizer(models.BPE(ignore_merges=kind == "llama-bpe"))
    level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if kind == "smollm":
        digits = pre_tokenizers.Digits(individual_digits=True)
        backend.pre_tokenizer = pre_tokenizers.Sequence([digits, level])
    else:
        backend.pre_tokenizer = level
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<|end|>", "<|user|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    return backend


def tokens_of(backend: Tokenizer, kind: str, **more: Any) -> dict[str, Any]:
    content = json.loads(backend.to_str())
    vocab = sorted(content["model"]["vocab"].items(), key=lambda item: item[1])
    special = {token["content"] for token in content["added_tokens"]}
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": kind,
        "tokenizer.ggml.tokens": [token for token, _ in vocab],
        "tokenizer.ggml.token_type": [3 if token in special else 1 for token, _ in vocab],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in content["model"]["merges"]],
        **more,
    }


def tokenizer_file(folder: Path, keys: dict[str, Any]) -> Path:
    count = len(keys["tokenizer.ggml.tokens"])
    return write(folder, keys, {"token_embd.weight": ("F32", (count, 16), bytes(count * 64))})


TEXTS = [
    *CORPUS,
    "",
    "  x",
    "it's 12345 IT'S\r\n\r\n end ",
    "naïve 模型 🎉\u200d ٣ Ⅷ",
    "<|user|>hi<|end|> <|end|>",
    "\x00\x01\t\n",
]


@pytest.mark.parametrize("kind", ["smollm", "gpt-2"])
def test_byte_level_tokens(kind: str, tmp_path: Path) -> None:
    original = trained(kind)
    model = reader.read(tokenizer_file(tmp_path, tokens_of(original, kind)))
    encoder = model.tokenizer.encoder()
    for text in TEXTS:
        ours, theirs = encoder.backend.encode(text), original.encode(text)
        assert (ours.ids, ours.offsets) == (theirs.ids, theirs.offsets)
        assert encoder.backend.decode(ours.ids) == original.decode(theirs.ids)
    assert encoder.limit == 64
    ours, theirs = (json.loads(b.to_str()) for b in (encoder.backend, original))
    assert ours["added_tokens"] == theirs["added_tokens"]


@pytest.mark.parametrize(
    ("kind", "text", "pieces"),
    [
        ("llama-bpe", "it'S 12345\n\n x", ["it", "'S", " ", "123", "45", "\n\n", " x"]),
        ("qwen2", "a 123 b", ["a", " ", "1", "2", "3", " b"]),
        ("gpt-2", "it's 12345", ["it", "'s", " 12345"]),
        ("refact", "x 12 y", ["x", " ", "1", "2", " y"]),
        ("default", "a+b 1234", ["a", "+", "b", " ", "123", "4"]),
        (None, "a+b 1234", ["a", "+", "b", " ", "123", "4"]),
    ],
)
def test_splits(kind: str | None, text: str, pieces: list[str], tmp_path: Path) -> None:
    keys = tokens_of(trained("gpt-2"), "x") | {"tokenizer.ggml.pre": kind}
    backend = reader.read(tokenizer_file(tmp_path, keys)).tokenizer.encoder().backend
    assert backend.pre_tokenizer is not None
    split = backend.pre_tokenizer.pre_tokenize_str(text)
    assert [text[a:b] for _, (a, b) in split] == pieces


def test_ends_and_settings(tmp_path: Path) -> None:
    keys = tokens_of(
        trained("gpt-2"),
        "llama-bpe",
        **{
            "tokenizer.ggml.bos_token_id": 1,
            "tokenizer.ggml.eos_token_id": 0,
            "tokenizer.ggml.add_eos_token": True,
            "tokenizer.chat_template": "{{ x }}",
            "tokenizer.chat_templates": ["tools"],
            "tokenizer.chat_template.tools": "{{ y }}",
        },
    )
    tokenizer = reader.read(tokenizer_file(tmp_path, keys)).tokenizer
    assert tokenizer.settings == {
        "bos_token": "<|user|>",
        "eos_token": "<|end|>",
        "add_bos_token": True,  # by default, for this kind
        "add_eos_token": True,
        "chat_template": "{{ x }}",
        "chat_templates": {"tools": "{{ y }}"},
    }
    backend = tokenizer.encoder().backend
    assert backend.encode("").ids == [1, 0]
    assert backend.encode("", "").ids == [1, 0, 1, 0]
    assert tokenizer.encoder().special_id("eos_token") == 0


def test_sentence_piece_tokens() -> None:
    tokenizer = reader.read(HERE / "gguf" / "llama.gguf").tokenizer
    backend = tokenizer.encoder().backend
    expected = json.loads((HERE / "gguf" / "llama.json").read_text())
    for text, ids in expected.items():
        assert backend.encode(text, add_special_tokens=False).ids == ids
        assert backend.encode(text).ids == [1, *ids]
        if "\N{LOWER ONE EIGHTH BLOCK}" not in text:
            assert backend.decode(ids) == text
    assert backend.encode("a</s>").ids[-1] == 2
    assert tokenizer.settings["chat_template"] == "{{ messages }}"


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"model": "wordpiece"}, r"model: is 'wordpiece'; gpt2 and llama are read"),
        ({"model": None}, r"model: is missing"),
        ({"pre": "unheard-of"}, r"pre: is 'unheard-of'; known are"),
        ({"token_type": [1]}, r"token_type: has 1 items for 600 tokens"),
        ({"token_type": ["1"]}, r"token_type: item 0 is '1', expected int"),
        ({"token_type": 1}, r"token_type: is 1, expected an array"),
        ({"merges": ["nospace"]}, r"merges: item 0, 'nospace', does not merge"),
        ({"merges": ["a \u4e00"]}, r"merges: item 0"),
        ({"bos_token_id": 10**6}, r"bos_token_id: is 1000000, the vocabulary has"),
        ({"add_bos_token": True}, r"bos_token_id: is missing"),
        ({"add_bos_token": 1}, r"add_bos_token: is 1, expected bool"),
        ({"tokens": []}, r"tokens: is missing"),
        ({"tokens": ["a", "a"]}, r"tokens: token 'a' comes twice"),
        ({"tokens": [b"\xff"]}, r"tokens: item 0 is b'\\xff', expected str, in UTF-8"),
        ({"model": "llama"}, r"scores: is missing"),
        ({"model": "llama", "scores": [0.5]}, r"scores: has 1 items for"),
    ],
)
def test_tokenizers_that_make_no_sense(
    changes: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    keys = tokens_of(trained("gpt-2"), "gpt-2")
    changed = {f"tokenizer.ggml.{name}": value for name, value in changes.items()}
    if "tokens" in changes:
        changed["tokenizer.ggml.token_type"] = None
    table = ("F32", (600, 16), bytes(600 * 64))
    path = write(tmp_path, keys | changed, {"token_embd.weight": table})
    with pytest.raises(trine.ModelError, match=rf"m\.gguf: tokenizer\.ggml\.{complaint}"):
        reader.read(path).tokenizer.encoder()


def test_more_tokens_than_rows(tmp_path: Path) -> None:
    path = write(tmp_path, tokens_of(trained("gpt-2"), "gpt-2"))
    with pytest.raises(trine.ModelError, match=r"tokens: has 600 tokens, the embedding table 6"):
        reader.read(path).tokenizer.encoder()
