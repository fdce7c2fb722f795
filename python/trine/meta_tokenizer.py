# SPDX-License-Identifier: Apache-2.0
"""The ``tokenizer.model`` of a Meta folder: tiktoken's ranks (Llama 3) or SentencePiece (1, 2)."""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING

from trine import bpe, chat, sentencepiece
from trine._core import ModelError
from trine.tokenization import TextEncoder
from trine.tokenizer_files import TokenizerSource

if TYPE_CHECKING:
    from pathlib import Path

    from tokenizers import Tokenizer

# Published files have 2.2 MB; keeps a wrong one from filling the memory.
_SIZE_LIMIT = 64 << 20
_LINE = re.compile(rb"([A-Za-z0-9+/]+={0,2}) (\d{1,9})")

# Llama 3 has 256 tokens behind the ranks. Names are those of Llama 3.1, as published configurations
# spell them; in Llama 3 those at 4, 8 and 10 are reserved, too.
_SPECIAL_COUNT = 256
_NAMED = {
    0: "begin_of_text",
    1: "end_of_text",
    4: "finetune_right_pad_id",
    6: "start_header_id",
    7: "end_header_id",
    8: "eom_id",
    9: "eot_id",
    10: "python_tag",
}
_BOS, _EOS, _ENDS = 0, 1, (1, 8, 9)


class MetaTokenizer(TokenizerSource):
    """A folder's tokenizer.model, read at first use.

    Parameters
    ----------
    path : Path
    vocab_size : int
        Rows of the embedding table.
    limit : int
        Most tokens that the model was made for.
    """

    def __init__(self, path: Path, *, vocab_size: int, limit: int) -> None:
        super().__init__()
        self._path, self._vocab_size, self._limit = path, vocab_size, limit

    def exist(self) -> bool:
        """Whether there is such a file."""
        return self._path.is_file()

    def chat_template(self) -> str | None:
        """Return one that lies beside: Meta's own folders have none."""
        return chat.read_template(self._path.parent)

    def special_tokens(self) -> dict[str, str]:
        """Return the tokens that begin and end a text."""
        return self.encoder().special if self.exist() else {}

    def ids(self) -> dict[str, int | list[int]]:
        """Return ``bos_token_id`` and ``eos_token_id``, as config.json would have them.

        Of Llama 3 all that may end a turn; without a file nothing.
        """
        if not self.exist():
            return {}
        if (ranks := read_ranks(self._path)) is not None:
            count = len(ranks)
            return {"bos_token_id": count + _BOS, "eos_token_id": [count + i for i in _ENDS]}
        model = sentencepiece.read(self._path, "BPE")
        places = {piece: i for i, (piece, _) in enumerate(model.pieces)}
        named = {"bos_token_id": "<s>", "eos_token_id": "</s>"}
        return {name: places[piece] for name, piece in named.items() if piece in places}

    def _read(self) -> TextEncoder:
        if not self.exist():
            raise ModelError(f"{self._path}: missing, so this model takes token ids but no text")
        ranks = read_ranks(self._path)
        backend = _sentence_piece(self._path) if ranks is None else _tiktoken(ranks)
        size = backend.get_vocab_size()
        if size > self._vocab_size:
            raise ModelError(
                f"{self._path}: {size} tokens, the embedding table has {self._vocab_size}"
            )
        special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
        if ranks is not None:
            special = {"bos_token": special_name(_BOS), "eos_token": special_name(_EOS)}
        special = {k: v for k, v in special.items() if backend.token_to_id(v) is not None}
        return TextEncoder(backend, limit=self._limit, special=special)


def special_name(index: int) -> str:
    """Return the name of a special token of Llama 3, counted from the first."""
    reserved = index - sum(1 for named in _NAMED if named < index)
    return f"<|{_NAMED.get(index, f'reserved_special_token_{reserved}')}|>"


def read_ranks(path: Path) -> list[bytes] | None:
    """Return tiktoken's tokens by rank; None for a file of another kind.

    Raises
    ------
    ModelError
        Missing, too large, or a line that is no token with the next rank: names the line.
    """
    try:
        size = path.stat().st_size
        if size > _SIZE_LIMIT:
            raise ModelError(f"{path}: {size} bytes, a tokenizer has at most {_SIZE_LIMIT}")
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}") from error
    if not lines or _LINE.fullmatch(lines[0]) is None:
        return None
    tokens: list[bytes] = []
    for number, line in enumerate(lines):
        found = _LINE.fullmatch(line)
        if found is None and not line and number == len(lines) - 1:
            break
        try:
            token = base64.b64decode(found[1], validate=True) if found else b""
        except binascii.Error:
            token = b""
        if found is None or not token or int(found[2]) != number:
            raise ModelError(f"{path}: line {number + 1} is not a token with the rank {number}")
        tokens.append(token)
    if len(set(tokens)) != len(tokens):
        raise ModelError(f"{path}: a token comes twice")
    return tokens


def _tiktoken(tokens: list[bytes]) -> Tokenizer:
    from tokenizers import AddedToken

    letters = _byte_letters()
    ranks = {"".join(letters[b] for b in token): rank for rank, token in enumerate(tokens)}
    backend = bpe.byte_level(ranks, bpe.ranked_merges(ranks), (bpe.LLAMA3,), whole_words=True)
    names = [special_name(i) for i in range(_SPECIAL_COUNT)]
    backend.add_special_tokens([AddedToken(name, normalized=False) for name in names])
    bpe.add_ends(backend, (names[_BOS], len(tokens) + _BOS), None)
    return backend


def _byte_letters() -> list[str]:
    """Return the character that stands for each byte in GPT-2's vocabulary: itself if it shows."""
    shown = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    letters, hidden = [], 0x100
    for byte in range(256):
        letters.append(chr(byte if byte in shown else hidden))
        hidden += byte not in shown
    return letters


def _sentence_piece(path: Path) -> Tokenizer:
    model = sentencepiece.read(path, "BPE")
    tokens = [piece for piece, _ in model.pieces]
    types = [model.kinds.get(i, bpe.NORMAL) for i in range(len(tokens))]
    scores = [score for _, score in model.pieces]
    try:
        adds_space = bool(model.add_dummy_prefix)
        backend = bpe.sentence_piece(tokens, types, scores, adds_space=adds_space)
        bpe.add_tokens(backend, tokens, types, unknown=True)
        if "<s>" in tokens:
            bpe.add_ends(backend, ("<s>", tokens.index("<s>")), None)
    except Exception as error:  # the library raises plain Exception
        raise ModelError(f"{path}: {error}") from error
    return backend
