# SPDX-License-Identifier: Apache-2.0
"""spm.model files: DebertaV2's tokenizer against goldens of transformers, and files that lie."""

from __future__ import annotations

import json
import random
import shutil
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trine import InputError, ModelError, sentencepiece
from trine.tokenizer_files import TokenizerFiles

if TYPE_CHECKING:
    from trine.tokenization import TextEncoder

SPM = Path(__file__).resolve().parents[1] / "golden" / "spm"
CONFIG = {"model_type": "deberta-v2"}
PLAIN = (SPM / "plain" / "spm.model").read_bytes()
TEXTS: list[str] = json.loads((SPM / "texts.json").read_text("utf-8"))


def load(folder: Path) -> TextEncoder:
    return TokenizerFiles(folder, CONFIG, token_types=True).encoder()


def copy(name: str, target: Path, **changes: object) -> Path:
    """Copy a fixture with other settings in its tokenizer_config.json."""
    shutil.copytree(SPM / name, target)
    path = target / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return target


def rows(encoder: TextEncoder, inputs: list[str | tuple[str, str]]) -> np.ndarray:
    found: list[list[int]] = []
    for index, text in enumerate(inputs):
        e = encoder.encode(text)[0]
        tokens = zip(e.ids, e.type_ids, e.special_tokens_mask, e.offsets, strict=True)
        found += ([index, *one[:3], *one[3]] for one in tokens)
    return np.array(found).T


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    with np.load(SPM / "expected.npz") as stored:
        return dict(stored)


# Goldens ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plain", "symbols", "bytes"])
def test_like_transformers(name: str, expected: dict[str, np.ndarray]) -> None:
    encoder = load(SPM / name)
    np.testing.assert_array_equal(rows(encoder, [*TEXTS]), expected[name])
    pairs = [*zip(TEXTS[:100], TEXTS[100:200], strict=True)]
    np.testing.assert_array_equal(rows(encoder, [*pairs]), expected[f"{name}_pairs"])


def test_by_the_table_of_the_file(tmp_path: Path, expected: dict[str, np.ndarray]) -> None:
    encoder = load(copy("plain", tmp_path / "t", spm_normalizer=True))
    np.testing.assert_array_equal(rows(encoder, [*TEXTS]), expected["plain_by_spm"])
    assert encoder.encode("\uff28\uff45\u2026")[0].tokens == encoder.encode("He...")[0].tokens


def test_bytes_of_what_is_unknown(tmp_path: Path, expected: dict[str, np.ndarray]) -> None:
    """With byte_fallback the ids are those of the sentencepiece library itself."""
    encoder = load(copy("bytes", tmp_path / "t", spm_normalizer=True))
    index, ids = expected["bytes_by_spm"]
    seen = 0
    for i, text in enumerate(TEXTS):
        if any(mark in text for mark in ("[", "\u00e9t", "\u2581")):
            continue  # added tokens are split off before, and spm takes "▁" for a space
        if text.strip() != text.strip(" "):
            continue  # transformers 4 strips all white space, spm what has become a space
        wanted = ids[index == i].tolist()
        assert encoder.encode(text)[0].ids[1:-1] == wanted, text
        seen += any(4 <= t < 260 for t in wanted)
    assert seen > 50


def test_special_tokens() -> None:
    plain, symbols = load(SPM / "plain"), load(SPM / "symbols")
    roles = ("pad_token", "cls_token", "sep_token", "unk_token", "mask_token")
    assert [plain.special_id(role) for role in roles] == [0, 1, 2, 3, 420]  # no piece is the mask
    assert [symbols.special_id(role) for role in roles] == [300, 1, 2, 0, 4]
    assert symbols.backend.token_to_id("Two Words") == 301
    assert load(SPM / "bytes").limit is None  # stored as 1e30
    pair = plain.tokens([("the city", "the lake")])
    assert pair.token_types is not None
    assert "".join(map(str, pair.token_types)).strip("0").strip("1") == ""
    assert pair.token_types[0] == 0
    assert pair.token_types[-1] == 1


def test_offsets_count_characters_of_the_text() -> None:
    encoder = load(SPM / "plain")
    text = "  e\u0301te\u0301 \U0001f468\u200d\U0001f469 \u5317\u4eac  the  city"
    encoding = encoder.encode(text)[0]
    assert {"the", "\u5317\u4eac"} <= {text[s:e].strip() for s, e in encoding.offsets}
    assert all(0 <= s <= e <= len(text) for s, e in encoding.offsets)


@pytest.mark.parametrize("strategy", ["longest_first", "only_first", "only_second"])
@pytest.mark.parametrize("limit", [9, 16, 40])
def test_truncation(strategy: str, limit: int) -> None:
    encoder = load(SPM / "plain")
    reference = load(SPM / "plain").backend
    reference.enable_truncation(limit, strategy=strategy)
    for pair in zip(TEXTS[:200], reversed(TEXTS[:200]), strict=True):
        try:
            wanted = reference.encode(*pair)
        except Exception:  # noqa: BLE001 - the library's own kind: nothing would be left
            with pytest.raises(InputError):
                encoder.encode(pair, limit=limit, strategy=strategy)  # type: ignore[arg-type]
            continue
        found = encoder.encode(pair, limit=limit, strategy=strategy)[0]  # type: ignore[arg-type]
        assert (found.ids, found.type_ids) == (wanted.ids, wanted.type_ids)
        assert found.offsets == wanted.offsets


def test_half_of_a_surrogate_pair() -> None:
    encoder = load(SPM / "plain")
    with pytest.raises(InputError, match=r"'\\ud800', at character 1"):
        encoder.encode(("a", "b\ud800"))
    with pytest.raises(InputError, match="not Unicode"):
        encoder.windows("\udfff", stride=1)


# Files -----------------------------------------------------------------------------------------


def test_a_tokenizer_json_goes_first(tmp_path: Path) -> None:
    folder = copy("plain", tmp_path / "t")
    load(SPM / "bytes").backend.save(str(folder / "tokenizer.json"))
    encoder = load(folder)
    assert encoder.encode("the city")[0].ids == load(SPM / "bytes").encode("the city")[0].ids
    assert encoder.special_id("mask_token") == 600  # though no file says which token that is


def test_tokens_that_text_is_split_at(tmp_path: Path) -> None:
    """Lists in tokenizer_config.json, where user-defined pieces no longer count."""
    names = {"extra_special_tokens": ["<x>"], "unk_token": None}
    listed = load(copy("symbols", tmp_path / "a", **names))
    assert listed.backend.token_to_id("<x>") == 302
    assert listed.encode("a<x>a")[0].tokens[2] == "<x>"
    assert "<ent>" not in listed.backend.get_added_tokens_decoder().values()
    named = load(copy("symbols", tmp_path / "b", extra_special_tokens={"x_token": "<x>"}))
    assert named.special_id("x_token") == 302
    assert named.encode("the<ent>city")[0].tokens[2] == "<ent>"


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"vocab_type": "gpt2"}, "vocab_type is 'gpt2', expected 'spm'"),
        ({"do_lower_case": 1}, "do_lower_case is 1, expected true or false"),
        ({"mask_token": 7}, "7 is no token"),
        ({"mask_token": ""}, "an empty text"),
        ({"extra_special_tokens": "<x>"}, "extra_special_tokens is no list"),
        ({"added_tokens_decoder": []}, "added_tokens_decoder is no object"),
        ({"added_tokens_decoder": {"x": {"content": "a"}}}, "'x' is no id"),
        ({"added_tokens_decoder": {"-1": {"content": "a"}}}, "'-1' is no id"),
        (
            {"added_tokens_decoder": {"500": {"content": "<x>"}}},
            "'<x>' is said to have the id 500, beside spm.model it gets 420",
        ),
    ],
)
def test_settings_that_lie(tmp_path: Path, changes: dict[str, object], complaint: str) -> None:
    with pytest.raises(ModelError, match=complaint):
        load(copy("plain", tmp_path / "t", **changes))


def test_another_family(tmp_path: Path) -> None:
    (tmp_path / "spm.model").write_bytes(PLAIN)
    with pytest.raises(ModelError, match="model_type 'deberta-v2' only"):
        TokenizerFiles(tmp_path, {"model_type": "llama"}).encoder()
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "DebertaV2Tokenizer"}')
    TokenizerFiles(tmp_path, {"model_type": "llama"}).encoder()


# Bytes -----------------------------------------------------------------------------------------


def message(number: int, content: bytes) -> bytes:
    assert len(content) < 128
    return bytes([number << 3 | 2, len(content)]) + content


def piece(text: bytes = b"a", score: float = -1.0, kind: int = 1) -> bytes:
    packed = b"\x15" + struct.pack("<f", score)
    return message(1, message(1, text) + packed + bytes([0x18, kind]))


def read(data: bytes, folder: Path) -> sentencepiece.SentencePiece:
    path = folder / "spm.model"
    path.write_bytes(data)
    return sentencepiece.read(path)


UNK = piece(b"<unk>", 0.0, 2)


def test_reader(tmp_path: Path) -> None:
    data = UNK + piece(b"\xe2\x96\x81", -2.5) + piece(b"<s>", 0.0, 3) + piece(b"<e>", -1.0, 4)
    data += message(2, b"\x18\x01" + b"\xc0\x02\x00" + b"\x98\x02\x01")
    data += message(3, message(2, b"abc") + b"\x18\x00\x20\x00") + message(5, b"later")
    model = read(data, tmp_path)
    assert model.pieces == [("<unk>", 0.0), ("\u2581", -2.5), ("<s>", 0.0), ("<e>", -1.0)]
    assert model.added() == [("<s>", True), ("<e>", False)]
    assert (model.unk_id, model.byte_fallback, model.add_dummy_prefix) == (0, 1, 0)
    assert (model.precompiled_charsmap, model.remove_extra_whitespaces) == (b"abc", 0)


def test_pieces_in_an_unusual_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The short cut for what every writer makes finds what the full reader finds."""
    for name in ("plain", "symbols", "bytes"):
        data = (SPM / name / "spm.model").read_bytes()
        usual = read(data, tmp_path)
        with monkeypatch.context() as patch:
            patch.setattr(sentencepiece, "_read_usual_pieces", lambda *_: 0)
            assert read(data, tmp_path) == usual
    swapped = message(1, b"\x18\x04" + b"\x15" + struct.pack("<f", -2.0) + message(1, b"b"))
    model = read(UNK + swapped + piece(), tmp_path)
    assert model.pieces == [("<unk>", 0.0), ("b", -2.0), ("a", -1.0)]
    assert model.kinds == {0: 2, 1: 4}


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "no pieces"),
        (b"\x80", "ends within a number, at byte 1"),
        (b"\xff" * 11, "more than 10 bytes"),
        (b"\x0b", "byte 0 has the wire type 3"),
        (b"\x0a\x05ab", "field 1 at byte 0 has 5 bytes, 2 left"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "left"),
        (b"\x08\x01", "pieces has the wire type 0"),
        (message(1, b"\x10\x01"), "score that is no number"),
        (message(1, b"\x18\x09"), "piece 0 is of an unknown type"),
        (piece(b"\xff"), "piece 0 is not UTF-8"),
        (piece(b""), "piece 0, '', is empty"),
        (piece() + piece(), "piece 1, 'a', is empty or there twice"),
        (piece(score=float("nan")), "score nan"),
        (piece(score=float("-inf")), "score -inf"),
        (UNK + message(2, b"\x18\x02"), "model_type is BPE, expected unigram"),
        (UNK + message(2, b"\x18\x07"), "model_type is 7"),
        (UNK + message(2, b"\xc0\x02\x01"), "unk_id is 1, there are 1 pieces"),
        (UNK + message(2, b"\xc0\x02" + b"\xff" * 9 + b"\x01"), "unk_id is -1"),
        (UNK + message(3, b"\x10\x01"), "precompiled_charsmap has the wire type 0"),
    ],
)
def test_damaged(tmp_path: Path, data: bytes, complaint: str) -> None:
    with pytest.raises(ModelError, match=f"spm.model: .*{complaint}"):
        read(data, tmp_path)


def test_missing_or_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="No such file"):
        sentencepiece.read(tmp_path / "spm.model")
    monkeypatch.setattr(sentencepiece, "_SIZE_LIMIT", 100)
    with pytest.raises(ModelError, match="at most 100"):
        read(PLAIN, tmp_path)


def test_every_truncation_is_an_error(tmp_path: Path) -> None:
    """Cut anywhere, the file is refused, or is the same without its last fields."""
    for size in range(0, len(PLAIN), 97):
        try:
            model = read(PLAIN[:size], tmp_path)
        except ModelError:
            continue
        assert len(model.pieces) <= 420


PROBE = "The \uff28\uff49 caf\u00e9 e\u0301 \u2026 \ufb01\x07 [MASK] \U0001f600 " + "".join(
    map(chr, range(1, 500))
)


def mutate(data: bytes, seed: int) -> bytes:
    """Flip, cut out, repeat and overwrite a few stretches."""
    draw = random.Random(seed)
    found = bytearray(data)
    for _ in range(draw.randint(1, 6)):
        at, size = draw.randrange(len(found)), draw.choice([1, 1, 1, 2, 4, 30])
        kind = draw.randrange(4)
        if kind == 0:
            found[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            found[at : at + size] = draw.randbytes(size)
        elif kind == 2:
            del found[at : at + size]
        else:
            found[at:at] = found[at : at + size]
        if not found:
            break
    return bytes(found)


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), by_spm=st.booleans())
def test_mutated_files(tmp_path_factory: pytest.TempPathFactory, seed: int, by_spm: bool) -> None:
    """A damaged file is refused with its name, or it is a tokenizer that works."""
    folder = tmp_path_factory.mktemp("m")
    (folder / "spm.model").write_bytes(mutate(PLAIN, seed))
    (folder / "tokenizer_config.json").write_text(json.dumps({"spm_normalizer": by_spm}))
    try:
        encoder = load(folder)
    except ModelError as error:
        assert "spm.model" in str(error)  # noqa: PT017 - either end is right
        return
    assert len(encoder.encode(PROBE)[0]) > 2
    encoder.encode((PROBE, PROBE), limit=9)


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_mutated_tables(seed: int) -> None:
    """A table that passes the check never leads the library out of itself, which would panic."""
    from tokenizers.normalizers import Precompiled

    path = SPM / "plain" / "spm.model"
    table = sentencepiece.read(path).precompiled_charsmap
    sentencepiece.check_charsmap(path, table)
    damaged = mutate(table, seed)
    try:
        sentencepiece.check_charsmap(path, damaged)
    except ModelError as error:
        assert "spm.model: normalizer_spec.precompiled_charsmap: " in str(error)  # noqa: PT017
        return
    Precompiled(damaged).normalize_str(PROBE)


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        (b"\x00\x04", "a table of 1024 bytes, 2 are there"),
        (b"\x00\x00\x00\x00ab", "a table of 0 bytes"),
        (b"\x00\x04\x00\x00" + bytes(1023), "a table of 1024 bytes, 1027 are there"),
        (b"\x00\x04\x00\x00" + bytes(1024) + b"\xff", "the replacements are not UTF-8"),
        (b"\x00\x04\x00\x00" + b"\x00\x04\x04\x00" + bytes(1020), "a step leads out of the table"),
        (
            b"\x00\x04\x00\x00" + bytes(4) + b"\x01\x01\x00\x00" + bytes(1016),
            "a replacement lies outside the texts",
        ),
    ],
)
def test_tables_that_lie(table: bytes, complaint: str) -> None:
    with pytest.raises(ModelError, match=complaint):
        sentencepiece.check_charsmap(Path("spm.model"), table)
