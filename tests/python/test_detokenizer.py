# SPDX-License-Identifier: Apache-2.0
"""Text of tokens as they come: whole characters, the tokenizer's own text, stop strings."""

from __future__ import annotations

import random

import pytest
from fakes import make_byte_fallback, make_byte_level
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trine.detokenizer import Detokenizer, StopStrings, Vocabulary

TEXTS = [
    "Hello, world!",
    "Zażółć gęślą jaźń",
    "日本語のテキスト、漢字。",
    "🦙🏔️👩‍👩‍👧‍👦 emoji",
    "tabs\tand\n\nlines  with   spaces ",
    "é́ combining, \ufffd itself, \x00 zero",
    " leading space",
    "",
]
MAKERS = {"byte-level": make_byte_level, "byte-fallback": make_byte_fallback}


@pytest.fixture(scope="module", params=MAKERS)
def vocabulary(request: pytest.FixtureRequest) -> Vocabulary:
    return Vocabulary(MAKERS[request.param]())


def pieces_of(vocabulary: Vocabulary, tokens: list[int]) -> list[str]:
    detokenizer = Detokenizer(vocabulary)
    return [*(detokenizer.push(token) for token in tokens), detokenizer.flush()]


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_are_whole_characters(vocabulary: Vocabulary, text: str) -> None:
    tokens = vocabulary.backend.encode(text, add_special_tokens=False).ids
    pieces = pieces_of(vocabulary, tokens)
    assert "".join(pieces) == vocabulary.decode(tokens)
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)
    if len(text) > 12 and text.isascii():  # and they come while the text grows
        assert sum(map(bool, pieces)) > 4


@pytest.mark.parametrize("seed", range(40))
def test_any_tokens(vocabulary: Vocabulary, seed: int) -> None:
    """Bytes that make no sense, special tokens anywhere."""
    rng = random.Random(seed)
    size = vocabulary.backend.get_vocab_size()
    kinds = [range(size), range(3, 259), [*vocabulary.special, 90, 200, 225, 230]]
    tokens = [rng.choice(kinds[seed % 3]) for _ in range(60)]
    assert "".join(pieces_of(vocabulary, tokens)) == vocabulary.decode(tokens)


def test_a_character_in_four_tokens() -> None:
    vocabulary = Vocabulary(make_byte_level())
    tokens = vocabulary.backend.encode("🦙!", add_special_tokens=False).ids
    assert len(tokens) == 5
    assert pieces_of(vocabulary, tokens) == ["", "", "", "🦙", "!", ""]
    assert pieces_of(vocabulary, tokens[:2]) == ["", "", "\ufffd"]


def cut(text: str, stops: list[str]) -> tuple[str, str | None]:
    """Stop strings as the whole text has them: the one that ends first, the longest of those."""
    found = [(text.find(s) + len(s), text.find(s), s) for s in stops if s in text]
    return (text[: min(found)[1]], min(found)[2]) if found else (text, None)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.text("ab\n", max_size=4), max_size=12),
    st.lists(st.text("ab\n", min_size=1, max_size=5), max_size=3),
)
def test_stop_strings(pieces: list[str], stops: list[str]) -> None:
    matcher = StopStrings(stops)
    shown = "".join(matcher.push(piece) for piece in pieces) + matcher.flush()
    assert (shown, matcher.found) == cut("".join(pieces), stops)


def test_only_what_may_begin_a_stop_string_is_held_back() -> None:
    matcher = StopStrings(["END", "\n\n"])
    assert [matcher.push(p) for p in ("a E", "N", "C\n", "x", "EN", "D of")] == [
        "a ",
        "",
        "ENC",
        "\nx",
        "",
        "",
    ]
    assert matcher.found == "END"
    assert matcher.push("more") == matcher.flush() == ""
