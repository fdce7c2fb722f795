# SPDX-License-Identifier: Apache-2.0
"""Truncation, windows and files, against the `tokenizers` library's own ways."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from fakes import MASK, TOKENIZER_CONFIG, VOCAB, make_tokenizer, write_tokenizer

from trine import InputError, ModelError
from trine.tokenization import TextEncoder
from trine.tokenizer_files import TokenizerFiles, least

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = {"model_type": "mpnet"}
TEXTS = [
    "",
    "a",
    "The weather service talks, walking very long!",
    "Ada lives in london and grace works there. " * 4,
    "a literal <pad> and <mask> here </s>",
    "été 北京 \U0001f600",
]
PAIRS = [(a, b) for a in TEXTS for b in TEXTS]


@pytest.fixture
def encoder() -> TextEncoder:
    backend = make_tokenizer()
    backend.no_padding()
    backend.no_truncation()
    return TextEncoder(backend, limit=12)


@pytest.mark.parametrize("limit", [2, 3, 5, 12, 100])
@pytest.mark.parametrize("side", ["right", "left"])
def test_truncation(encoder: TextEncoder, limit: int, side: str) -> None:
    encoder.side = side  # type: ignore[assignment]
    reference = make_tokenizer()
    reference.no_padding()
    reference.enable_truncation(limit, direction=side)
    for text in TEXTS:
        whole = len(encoder.backend.encode(text))
        encoding, cut = encoder.encode(text, limit=limit)
        assert encoding.ids == reference.encode(text).ids
        assert cut == max(0, whole - limit)


@pytest.mark.parametrize("limit", [5, 8, 9, 16, 30, 100])
@pytest.mark.parametrize("strategy", ["longest_first", "only_first", "only_second"])
def test_pairs(encoder: TextEncoder, limit: int, strategy: str) -> None:
    reference = make_tokenizer()
    reference.no_padding()
    reference.enable_truncation(limit, strategy=strategy)
    for pair in PAIRS:
        try:
            expected = reference.encode(*pair).ids
        except Exception:  # noqa: BLE001 - the library's own kind: nothing would be left
            with pytest.raises(InputError, match=f"limit of {limit}"):
                encoder.encode(pair, limit=limit, strategy=strategy)  # type: ignore[arg-type]
            continue
        found = encoder.encode(pair, limit=limit, strategy=strategy)[0]  # type: ignore[arg-type]
        assert found.ids == expected


@pytest.mark.parametrize("stride", [0, 1, 4])
@pytest.mark.parametrize("text", [TEXTS[3], (TEXTS[1], TEXTS[3]), (TEXTS[2], TEXTS[3])])
def test_windows(encoder: TextEncoder, text: str | tuple[str, str], stride: int) -> None:
    reference = make_tokenizer()
    reference.no_padding()
    strategy = "only_second" if isinstance(text, tuple) else "longest_first"
    reference.enable_truncation(20, stride=stride, strategy=strategy)
    first = reference.encode(*text) if isinstance(text, tuple) else reference.encode(text)
    found = encoder.windows(text, stride=stride, limit=20)
    assert len(found) > 1
    assert [w.ids for w in found] == [w.ids for w in (first, *first.overflowing)]
    assert [w.offsets for w in found] == [w.offsets for w in (first, *first.overflowing)]
    assert [w.sequence_ids for w in found] == [w.sequence_ids for w in (first, *first.overflowing)]


def test_windows_of_a_question_that_fills_them(encoder: TextEncoder) -> None:
    with pytest.raises(InputError, match="first text alone"):
        encoder.windows((TEXTS[3], "a b c d"), stride=2, limit=12)


def test_tokens_report_what_was_cut(encoder: TextEncoder) -> None:
    tokens = encoder.tokens(TEXTS)
    assert [len(row) for row in tokens] == tokens.lengths.tolist()
    assert tokens.truncated[:2] == [0, 0]
    whole = len(encoder.backend.encode(TEXTS[3]))
    assert tokens.truncated[3] == whole - 12 > 0
    with pytest.raises(InputError, match=f"input 8 has {whole} tokens, the limit is 12"):
        encoder.tokens(["a", TEXTS[3]], truncate=False, first=7)


def test_limit_without_room(encoder: TextEncoder) -> None:
    with pytest.raises(InputError, match="no room"):
        encoder.encode("a b", limit=1)


def test_prompt_length_leaves_out_the_last_special_token(encoder: TextEncoder) -> None:
    assert encoder.prompt_length("the city", None) == 3  # <s> the city


# Files -----------------------------------------------------------------------------------------


def test_settings_stored_in_the_file_do_not_hold(folder: Path) -> None:
    encoder = TokenizerFiles(folder, CONFIG).encoder()
    assert len(encoder.encode("the city and the lake and the river")[0]) == 10
    assert encoder.special_id("mask_token") == MASK
    assert encoder.special_id("cls_token") == 0


@pytest.mark.parametrize(
    ("max_seq_length", "most", "stored", "expected"),
    [
        (None, None, 40, 40),
        (None, 30, 40, 30),
        (20, 30, 40, 20),
        (50, 60, 40, 50),  # sentence-transformers lets its own setting win
        (90, 60, 40, 60),
        (None, 60, 1e30, 60),
        (None, None, 1e30, None),
    ],
)
def test_limit(
    tmp_path: Path,
    max_seq_length: int | None,
    most: int | None,
    stored: float,
    expected: int | None,
) -> None:
    folder = write_tokenizer(tmp_path / "t", model_max_length=stored)
    files = TokenizerFiles(folder, CONFIG, max_seq_length=max_seq_length, most=most)
    assert files.encoder().limit == expected


def test_least() -> None:
    assert least(None, 1e30, 7, 9) == 7
    assert least(None) is None


def test_vocab_alone(tmp_path: Path) -> None:
    """A vocab.txt gives what transformers' MPNetTokenizer builds from it: the same as the JSON."""
    (tmp_path / "vocab.txt").write_text("\n".join(VOCAB) + "\n", encoding="utf-8")
    encoder = TokenizerFiles(tmp_path, CONFIG).encoder()
    reference = make_tokenizer()
    reference.no_padding()
    reference.no_truncation()
    for text in TEXTS:
        assert encoder.encode(text)[0].ids == reference.encode(text).ids
    assert encoder.encode(("a", "the"))[0].ids == reference.encode("a", "the").ids
    assert encoder.special_id("mask_token") is None  # nothing names it
    assert encoder.backend.token_to_id("<mask>") == MASK


def test_vocab_with_cased_settings(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join([*VOCAB[:-1], "Ada", "<mask>"]), encoding="utf-8")
    settings = TOKENIZER_CONFIG | {"do_lower_case": False}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    encoder = TokenizerFiles(tmp_path, CONFIG).encoder()
    assert encoder.encode("Ada")[0].tokens == ["<s>", "Ada", "</s>"]


def test_lowercase_goes_first(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path / "t")
    text = (folder / "tokenizer.json").read_text(encoding="utf-8")
    cased = text.replace('"lowercase": true', '"lowercase": false')
    assert cased != text
    (folder / "tokenizer.json").write_text(cased, encoding="utf-8")
    plain = TokenizerFiles(folder, CONFIG).encoder().encode("THE City")[0]
    lowered = TokenizerFiles(folder, CONFIG, lowercase=True).encoder().encode("THE City")[0]
    assert plain.tokens != lowered.tokens == ["<s>", "the", "city", "</s>"]


def test_word_pieces_are_joined_without_a_decoder_in_the_file(tmp_path: Path) -> None:
    backend = make_tokenizer()
    backend.save(str(tmp_path / "tokenizer.json"))
    stored = json.loads((tmp_path / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps(stored | {"decoder": None}))
    loaded = TokenizerFiles(tmp_path, CONFIG).encoder().backend
    assert loaded.decode(loaded.encode("walking the city").ids) == "walking the city"


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({}, "no tokenizer.json, no vocab.txt and no spm.model"),
        ({"tokenizer.json": "{"}, "tokenizer.json: not valid JSON"),
        ({"tokenizer.json": "{}"}, "tokenizer.json: "),
        ({"vocab.txt": "the\n"}, "vocab.txt: the special tokens .*<s>"),
        ({"vocab.txt": "the\n", "tokenizer_config.json": "[]"}, "tokenizer_config.json: expected"),
    ],
)
def test_broken_files(tmp_path: Path, files: dict[str, str], complaint: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ModelError, match=complaint):
        TokenizerFiles(tmp_path, CONFIG).encoder()


def test_vocab_of_another_family(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(VOCAB))
    with pytest.raises(ModelError, match="model_type 'mpnet' only"):
        TokenizerFiles(tmp_path, {"model_type": "bert"}).encoder()


def test_prefetch_keeps_its_error_for_later(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{")
    files = TokenizerFiles(tmp_path, CONFIG)
    files.prefetch()
    with pytest.raises(ModelError, match="not valid JSON"):
        files.encoder()


def test_token_types(encoder: TextEncoder) -> None:
    assert encoder.tokens(["a"]).token_types is None
    encoder.token_types = True
    types = encoder.tokens(["a", ("a", "the")]).token_types
    assert types is not None
    assert types.dtype == np.int32
