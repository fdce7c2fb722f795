# SPDX-License-Identifier: Apache-2.0
"""Tokens to text, piece by piece: never half a character, never a stop string."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenizers import Tokenizer

_REPLACEMENT = "\ufffd"  # what bytes that are no character decode to
_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")


class Vocabulary:
    """What decoding needs to know of a tokenizer, found once. Safe to use from many threads."""

    def __init__(self, backend: Tokenizer) -> None:
        self.backend = backend
        added = backend.get_added_tokens_decoder()
        self.special = frozenset(i for i, token in added.items() if token.special)
        self.added = {token.content: i for i, token in added.items()}
        self._byte_fallback = "ByteFallback" in _decoder_kinds(backend)

    def is_byte(self, token: int) -> bool:
        """Whether the token stands for one byte of a character that the vocabulary lacks."""
        if not self._byte_fallback:
            return False
        text = self.backend.id_to_token(token)
        return text is not None and _BYTE.fullmatch(text) is not None

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens without special ones."""
        return str(self.backend.decode(list(tokens), skip_special_tokens=True))


def _decoder_kinds(backend: Tokenizer) -> set[str]:
    """Return the types of the decoders that the tokenizer is made of."""
    kinds: set[str] = set()
    pending = [json.loads(backend.decoder.__getstate__())] if backend.decoder else []
    while pending:
        decoder = pending.pop()
        kinds.add(decoder.get("type", ""))
        pending += decoder.get("decoders", [])
    return kinds


class Detokenizer:
    """Text of one sequence of tokens as they come.

    The pieces, joined, are what the tokenizer makes of all tokens at once. Text is held back while
    later tokens may change it: bytes of a character that isn't complete, and bytes that only make
    sense together.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        # Spaces between words depend on the token before, so the last piece's tokens are decoded
        # again, as context: tokens[:_shown] are on display, tokens[_shown:] are held back.
        self._tokens: list[int] = []
        self._shown = 0

    def push(self, token: int) -> str:
        """Take the next token; returns the text that is certain now."""
        if token in self._vocabulary.special:
            return ""
        self._tokens.append(token)
        if self._vocabulary.is_byte(token):
            return ""
        return self._show(final=False)

    def flush(self) -> str:
        """Return what is held back: there are no more tokens."""
        return self._show(final=True)

    def _show(self, *, final: bool) -> str:
        decode = self._vocabulary.decode
        before = decode(self._tokens[: self._shown])
        now = decode(self._tokens)
        if not final and now.endswith(_REPLACEMENT):
            return ""
        piece = now[len(before) :]
        if piece:
            del self._tokens[: self._shown]
            self._shown = len(self._tokens)
        return piece


class StopStrings:
    """Finds the first of several strings in text that comes in pieces.

    The one that ends first counts; text that may be the beginning of one is held back.
    """

    def __init__(self, strings: Sequence[str]) -> None:
        self._strings = strings
        self._held = ""
        self.found: str | None = None

    def push(self, piece: str) -> str:
        """Take a piece of text; returns what is certain not to belong to a stop string.

        Once `found` is set, what came before the string has been returned, and nothing follows.
        """
        if self.found is not None:
            return ""
        text = self._held + piece
        ends = [
            (start + len(string), start, string)
            for string in self._strings
            if (start := text.find(string)) >= 0
        ]
        if ends:
            _, start, self.found = min(ends)
            self._held = ""
            return text[:start]
        keep = max((_overlap(text, string) for string in self._strings), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """Return what is held back: there is no more text."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, string: str) -> int:
    """Return how many characters at the end of the text begin the string."""
    for size in range(min(len(text), len(string) - 1), 0, -1):
        if text.endswith(string[:size]):
            return size
    return 0
