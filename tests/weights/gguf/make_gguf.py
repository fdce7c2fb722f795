# SPDX-License-Identifier: Apache-2.0
"""GGUF files made by the reference package, and what is in them.

``python make_gguf.py`` needs gguf and sentencepiece and writes beside itself; the tests need
neither.

blocks.gguf      a tensor of random blocks of every type that is read; blocks.npz has its floats
llama.gguf       keys of every type, a vocabulary of SentencePiece's BPE and q and k as llama.cpp's
                 converter permutes them; llama.json has the tokens of some texts
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import gguf
import numpy as np
import sentencepiece as spm
from gguf import GGMLQuantizationType as Kind
from gguf import TokenType

HERE = Path(__file__).resolve().parent
CORPUS = HERE.parents[1] / "golden" / "corpus256.txt"

KINDS = [
    Kind.Q8_0,
    Kind.Q4_0,
    Kind.Q4_1,
    Kind.Q5_0,
    Kind.Q5_1,
    Kind.Q4_K,
    Kind.Q5_K,
    Kind.Q6_K,
]
# Where a block has its halves.
HALVES = {Kind.Q6_K: [208]}
for with_min in (Kind.Q4_1, Kind.Q5_1, Kind.Q4_K, Kind.Q5_K):
    HALVES[with_min] = [0, 2]
for plain in (Kind.Q8_0, Kind.Q4_0, Kind.Q5_0):
    HALVES[plain] = [0]

TEXTS = [
    "",
    " ",
    "Hello world",
    "  two spaces  and\ttab\nline",
    "naïve café, 模型 🎉",
    "1234567890 3.14",
    "</s><s> in a text",
    "\N{LOWER ONE EIGHTH BLOCK}x \N{LOWER ONE EIGHTH BLOCK}",
    "ALL CAPS and MiXeD",
    "\x00\x7f\u200d",
]


def blocks() -> None:
    rng = np.random.default_rng(3)
    writer = gguf.GGUFWriter(HERE / "blocks.gguf", "llama")
    expected = {}
    for kind in KINDS:
        elements, size = gguf.GGML_QUANT_SIZES[kind]
        raw = rng.integers(0, 256, (2, 256 // elements, size), np.uint8)
        for at in HALVES[kind]:
            raw[:, :, at + 1] &= 0xBF  # scales below 2: no infinity, no NaN
        raw = raw.reshape(2, -1)
        floats = gguf.quants.dequantize(raw, kind).astype(np.float32).reshape(2, 256)
        writer.add_tensor(kind.name, raw, raw_dtype=kind)
        expected[kind.name] = floats
    finish(writer)
    np.savez_compressed(HERE / "blocks.npz", **expected)


def finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def permuted(weights: np.ndarray, heads: int) -> np.ndarray:
    """What llama.cpp's converter does to q and k."""
    split = weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:])
    return split.swapaxes(1, 2).reshape(weights.shape)


def llama() -> None:
    trained = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS.read_text().splitlines()[:64]),
        model_writer=trained,
        vocab_size=400,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        character_coverage=1.0,
        num_threads=1,
    )
    words = spm.SentencePieceProcessor(model_proto=trained.getvalue())
    kinds = [
        TokenType.UNKNOWN
        if words.is_unknown(i)
        else TokenType.CONTROL
        if words.is_control(i)
        else TokenType.BYTE
        if words.is_byte(i)
        else TokenType.NORMAL
        for i in range(words.vocab_size())
    ]
    writer = gguf.GGUFWriter(HERE / "llama.gguf", "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(32)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(500000.0)
    writer.add_rope_dimension_count(8)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([words.id_to_piece(i) for i in range(words.vocab_size())])
    writer.add_token_scores([words.get_score(i) for i in range(words.vocab_size())])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template("{{ messages }}")
    writer.add_array("test.nested", [[1, 2], [3]])
    writer.add_bool("test.bool", True)
    writer.add_float64("test.f64", 0.1)
    writer.add_uint8("test.u8", 255)
    writer.add_int8("test.i8", -128)
    writer.add_int16("test.i16", -32768)
    writer.add_int64("test.i64", -(2**63))
    writer.add_uint64("test.u64", 2**64 - 1)
    rows = np.arange(32, dtype=np.float32)
    table = np.repeat(rows[:, None], 32, 1)
    table_of_zeros = gguf.quants.quantize(np.zeros((words.vocab_size(), 32)), Kind.Q4_0)
    writer.add_tensor("token_embd.weight", table_of_zeros, raw_dtype=Kind.Q4_0)
    writer.add_tensor("output_norm.weight", np.ones(32, np.float32))
    q8 = gguf.quants.quantize(permuted(table, 4), Kind.Q8_0)
    writer.add_tensor("blk.0.attn_q.weight", q8, raw_dtype=Kind.Q8_0)
    writer.add_tensor("blk.0.attn_q.bias", permuted(rows, 4))
    writer.add_tensor("blk.0.attn_k.weight", permuted(table[:16], 2).astype(np.float16))
    writer.add_tensor("blk.0.attn_k.bias", permuted(rows[:16], 2))
    writer.add_tensor("blk.0.attn_v.weight", table[:16])
    writer.add_tensor("rope_freqs.weight", np.array([1, 1, 4.5, 8], np.float32))
    finish(writer)
    texts = [*TEXTS, *CORPUS.read_text().splitlines()[64:72]]
    # SentencePiece doesn't look for control tokens in a text; "\x00" ends it for some versions.
    texts = [text for text in texts if "<s>" not in text and "\x00" not in text]
    expected = {text: words.encode(text) for text in texts}
    (HERE / "llama.json").write_text(json.dumps(expected, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    blocks()
    llama()
