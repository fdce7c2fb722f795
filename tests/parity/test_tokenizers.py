# SPDX-License-Identifier: Apache-2.0
"""DeBERTa's tokenizer from an spm.model against transformers, on thousands of texts."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from make_spm import ROOT, as_transformers_4
from transformers import AutoTokenizer, DebertaV2Tokenizer
from unicode_texts import texts

from trine.tokenizer_files import TokenizerFiles

if TYPE_CHECKING:
    from pathlib import Path

    from tokenizers import Encoding

    from trine.tokenization import TextEncoder

CONFIG = {"model_type": "deberta-v2"}
TEXTS = texts(6000, seed=1)
FIRST, SECOND = TEXTS[:1000], TEXTS[999::-1]
NAMES = ["plain", "symbols", "bytes"]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"do_lower_case": True},
    {"do_lower_case": False, "split_by_punct": True},
    {"do_lower_case": True, "split_by_punct": True, "add_prefix_space": False},
    {"extra_special_tokens": ["<ent>", "the"], "unk_token": "the"},
    {"additional_special_tokens": [], "cls_token": "[SEP]", "split_special_tokens": True},
    {"extra_special_tokens": {"ent_token": "<ent>"}, "truncation_side": "left"},
]


def prepare(folder: Path, name: str, **options: Any) -> Path:
    """Copy a fixture and change its settings."""
    shutil.copytree(ROOT / name, folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | options))
    return folder


def load(folder: Path) -> TextEncoder:
    return TokenizerFiles(folder, CONFIG, token_types=True).encoder()


def columns(encoding: Encoding) -> tuple[Any, ...]:
    return encoding.ids, encoding.type_ids, encoding.special_tokens_mask, encoding.offsets


def same(encoder: TextEncoder, reference: Any, first: list[str], *rest: Any, **how: Any) -> None:
    """Expect the same ids, types, special tokens and offsets."""
    found = reference(
        first,
        *rest,
        return_token_type_ids=True,
        return_special_tokens_mask=True,
        return_offsets_mapping=True,
        **how,
    )
    cut = {"limit": how["max_length"], "strategy": how["truncation"]} if how else {}
    inputs = [*zip(first, *rest, strict=True)] if rest else first
    for index, text in enumerate(inputs):
        expected = columns(found.encodings[index])
        assert columns(encoder.encode(text, **cut)[0]) == expected, repr(text)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", OPTIONS, ids=repr)
@pytest.mark.parametrize("name", NAMES)
def test_options(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    """The library's own description of the two is the same, and what they do."""
    folder = prepare(tmp_path / "t", name, **options)
    encoder, reference = load(folder), DebertaV2Tokenizer.from_pretrained(folder)
    described = [json.loads(t.to_str()) for t in (encoder.backend, reference._tokenizer)]
    assert described[0] == described[1]
    same(encoder, reference, TEXTS[::12])
    same(encoder, reference, FIRST[::5], SECOND[::5])
    for role in ("pad", "cls", "sep", "unk", "mask"):
        assert encoder.special_id(f"{role}_token") == getattr(reference, f"{role}_token_id")


@pytest.mark.parametrize("name", NAMES)
def test_texts(tmp_path: Path, name: str) -> None:
    folder = prepare(tmp_path / "t", name)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    same(load(folder), AutoTokenizer.from_pretrained(folder), TEXTS)


@pytest.mark.parametrize("strategy", ["longest_first", "only_first", "only_second"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("limit", [11, 24])
def test_truncation(tmp_path: Path, strategy: str, side: str, limit: int) -> None:
    folder = prepare(tmp_path / "t", "plain", truncation_side=side, model_max_length=1e30)
    encoder, reference = load(folder), DebertaV2Tokenizer.from_pretrained(folder)
    assert encoder.limit is None
    cut = {"truncation": strategy, "max_length": limit}
    pairs = [*zip(FIRST, SECOND, strict=True)]
    if strategy != "longest_first":  # the library refuses where nothing would be left
        kept = 1 if strategy == "only_first" else 0
        room = limit - 4
        pairs = [p for p in pairs if len(encoder.encode(p[kept])[0]) - 2 <= room]
    assert len(pairs) > 100
    same(encoder, reference, [a for a, _ in pairs], [b for _, b in pairs], **cut)
    if strategy == "longest_first":
        same(encoder, reference, TEXTS[:1000], **cut)


def test_as_transformers_4(tmp_path: Path) -> None:
    """With the table of the file: what its AutoTokenizer made of a folder without JSON."""
    folder = prepare(tmp_path / "t", "plain", spm_normalizer=True)
    same(load(folder), as_transformers_4(folder), TEXTS)


def test_a_saved_tokenizer_json(tmp_path: Path) -> None:
    """What transformers saves is read back from its tokenizer.json."""
    for name in NAMES:
        reference = DebertaV2Tokenizer.from_pretrained(ROOT / name)
        reference.save_pretrained(tmp_path / name)
        assert (tmp_path / name / "tokenizer.json").is_file()
        same(load(tmp_path / name), reference, TEXTS[:1500])
