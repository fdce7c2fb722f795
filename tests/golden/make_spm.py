# SPDX-License-Identifier: Apache-2.0
"""Make spm/: tiny SentencePiece models, and what transformers' DebertaV2Tokenizer makes of texts.

    pip install sentencepiece protobuf transformers
    python make_spm.py

See README.md.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
from transformers import DebertaV2Tokenizer, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import DebertaV2Converter
from unicode_texts import texts

HERE = Path(__file__).resolve().parent
ROOT = HERE / "spm"
COUNT = 300

V3 = {
    "pad_id": 0,
    "bos_id": 1,
    "eos_id": 2,
    "unk_id": 3,
    "pad_piece": "[PAD]",
    "bos_piece": "[CLS]",
    "eos_piece": "[SEP]",
    "unk_piece": "[UNK]",
}
CONFIG = {"do_lower_case": False, "vocab_type": "spm"}


def nfkc_rules(*, fold: bool) -> str:
    """Return a small cut of nmt_nfkc, whose whole table has 240 kB, in the trainer's TSV form."""
    characters = [*range(0xFF01, 0xFF5F), *range(0xFB00, 0xFB05), *range(0xC0, 0x100)]
    characters += [0xA0, 0xBD, 0x2026, 0x2122, 0x3000, 0x1E69, 0x1E9E, 0x130, 0x212A]
    rules = {(c,): unicodedata.normalize("NFKC", chr(c)) for c in characters}
    rules |= {(ord("e"), 0x301): "\u00e9", (ord("a"), 0x300, 0x301): "\u00e0\u0301"}
    rules |= {(c,): "" for c in (1, 2, 7, 8, 0x1B, 0x7F, 0x200B)}
    rules |= {(c,): " " for c in (9, 10, 13, 0x2028)}
    if fold:
        rules |= {(c,): chr(c + 32) for c in range(0x41, 0x5B)}
        rules = {source: text.casefold() for source, text in rules.items()}
    lines = (
        " ".join(f"{c:X}" for c in source) + "\t" + " ".join(f"{ord(c):X}" for c in text)
        for source, text in rules.items()
        if "".join(map(chr, source)) != text
    )
    return "\n".join(lines) + "\n"


def train(folder: Path, **options: Any) -> int:
    """Train spm.model; returns the number of its pieces."""
    folder.mkdir(parents=True)
    rules = options.pop("rules", None)
    if rules is not None:
        os.chdir(folder)  # the file keeps the name that it is given
        Path("rules.tsv").write_text(rules, "utf-8")
        options["normalization_rule_tsv"] = "rules.tsv"
    written = io.BytesIO()
    corpus = (HERE / "corpus256.txt").read_text("utf-8").splitlines()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus),
        model_writer=written,
        model_type="unigram",
        num_threads=1,
        minloglevel=2,
        **options,
    )
    (folder / "spm.model").write_bytes(written.getvalue())
    (folder / "rules.tsv").unlink(missing_ok=True)
    return sentencepiece.SentencePieceProcessor(model_proto=written.getvalue()).get_piece_size()


def write(folder: Path, **files: Any) -> None:
    """Write JSON files."""
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value, indent=1) + "\n", "utf-8")


def make_plain() -> None:
    """As microsoft/deberta-v3-*: a spm.model, two settings, [MASK] beyond the vocabulary."""
    folder = ROOT / "plain"
    train(folder, vocab_size=420, rules=nfkc_rules(fold=False), **V3)
    write(folder, tokenizer_config=CONFIG)


def make_symbols() -> None:
    """Other names of special tokens, user-defined pieces, added tokens; the older JSON files."""
    folder = ROOT / "symbols"
    symbols = ["<ent>", "[MASK]", "##"]
    count = train(folder, vocab_size=300, rules=nfkc_rules(fold=True), user_defined_symbols=symbols)
    mask = {"content": "[MASK]", "lstrip": True, "rstrip": False, "normalized": False}
    write(
        folder,
        tokenizer_config=CONFIG | {"do_lower_case": True, "split_by_punct": True},
        special_tokens_map={
            "cls_token": "<s>",
            "bos_token": "<s>",
            "sep_token": {"content": "</s>", "normalized": False},
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "mask_token": mask | {"single_word": False},
        },
        added_tokens={"[PAD]": count, "Two Words": count + 1},
    )


def make_bytes() -> None:
    """Byte pieces and no normalisation; tokens listed with their ids, as transformers 4 saved."""
    folder = ROOT / "bytes"
    count = train(
        folder,
        vocab_size=600,
        normalization_rule_name="identity",
        byte_fallback=True,
        **V3,
    )
    plain = dict.fromkeys(("lstrip", "rstrip", "single_word"), False)
    special = plain | {"normalized": False, "special": True}
    names = {0: "[PAD]", 1: "[CLS]", 2: "[SEP]", 3: "[UNK]", count: "[MASK]"}
    decoder = {str(i): {"content": name} | special for i, name in names.items()}
    new = {"content": "\u00e9t", "normalized": True, "special": False, "single_word": True}
    decoder[str(count + 1)] = plain | new
    write(
        folder,
        tokenizer_config=CONFIG
        | {"added_tokens_decoder": decoder, "mask_token": "[MASK]", "model_max_length": int(1e30)},
    )


def as_transformers_4(folder: Path) -> PreTrainedTokenizerFast:
    """Return what AutoTokenizer of transformers 4 made of a folder like `plain`."""

    class Slow:
        vocab_file = str(folder / "spm.model")
        do_lower_case = split_by_punct = False
        add_prefix_space = True

        def convert_tokens_to_ids(self, token: str) -> int:
            return {"[CLS]": 1, "[SEP]": 2}[token]

    roles = {f"{role}_token": f"[{role.upper()}]" for role in ("unk", "sep", "pad", "cls", "mask")}
    return PreTrainedTokenizerFast(tokenizer_object=DebertaV2Converter(Slow()).converted(), **roles)


def encode(tokenizer: Any, inputs: list[str], seconds: list[str] | None = None) -> np.ndarray:
    """Return columns: text number, id, type, special, start, end."""
    keys = ("input_ids", "token_type_ids", "special_tokens_mask", "offset_mapping")
    wanted = {"return_token_type_ids", "return_special_tokens_mask", "return_offsets_mapping"}
    found = tokenizer(inputs, seconds, **dict.fromkeys(wanted, True))
    rows: list[list[int]] = []
    for index in range(len(inputs)):
        ids, types, special, offsets = (found[key][index] for key in keys)
        tokens = zip(ids, types, special, offsets, strict=True)
        rows += ([index, *one[:3], *one[3]] for one in tokens)
    return np.array(rows, np.int16).T.copy()  # columns pack better


def main() -> None:
    """Make all of it anew."""
    shutil.rmtree(ROOT, ignore_errors=True)
    make_plain()
    make_symbols()
    make_bytes()
    inputs = texts(COUNT)
    write(ROOT, texts=inputs)
    expected = {}
    for name in ("plain", "symbols", "bytes"):
        tokenizer = DebertaV2Tokenizer.from_pretrained(ROOT / name)
        expected[name] = encode(tokenizer, inputs)
        expected[f"{name}_pairs"] = encode(tokenizer, inputs[:100], inputs[100:200])
    expected["plain_by_spm"] = encode(as_transformers_4(ROOT / "plain"), inputs)
    processor = sentencepiece.SentencePieceProcessor(str(ROOT / "bytes" / "spm.model"))
    rows = enumerate(processor.encode(inputs))
    expected["bytes_by_spm"] = np.array([(i, t) for i, ids in rows for t in ids], np.int16).T
    np.savez_compressed(ROOT / "expected.npz", **expected)


if __name__ == "__main__":
    main()
