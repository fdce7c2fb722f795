# SPDX-License-Identifier: Apache-2.0
"""The tokenizer of a GGUF file, built with the `tokenizers` library from its metadata."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trine import bpe
from trine._core import ModelError
from trine.tokenization import TextEncoder
from trine.tokenizer_files import TokenizerSource

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from trine.gguf import Metadata

_PREFIX = "tokenizer.ggml."

_GPT2, _LLAMA3 = bpe.GPT2, bpe.LLAMA3
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")

# tokenizer.ggml.pre: expressions whose matches are cut out one after the other.
_SPLITS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("gpt-2", "gpt2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling"), (_GPT2,)
    ),
    **dict.fromkeys(
        ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"),
        (r"\p{N}", _GPT2),
    ),
    **dict.fromkeys(("llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral"), (_LLAMA3,)),
    **dict.fromkeys(("qwen2", "stablelm2", "deepseek-r1-qwen"), (_QWEN2,)),
    "default": (r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"),
}
# A word that is in the vocabulary is one token, whatever the merges say; a text begins with bos.
_WHOLE_WORDS = {"llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral"}

# Roles of tokens, here and in tokenizer_config.json.
_ROLES = {
    "bos": "bos_token",
    "eos": "eos_token",
    "unknown": "unk_token",
    "padding": "pad_token",
    "seperator": "sep_token",  # the format's spelling
    "mask": "mask_token",
}


class GgufTokenizer(TokenizerSource):
    """A GGUF file's tokenizer, built at first use.

    Parameters
    ----------
    metadata : Metadata
    vocab_size : int
        Rows of the embedding table.
    limit : int
        Most tokens that the model can take.

    Attributes
    ----------
    settings : dict
        What tokenizer_config.json would say: special tokens by role, ``chat_template``,
        ``add_bos_token``, ``add_eos_token``.
    """

    def __init__(self, metadata: Metadata, *, vocab_size: int, limit: int) -> None:
        super().__init__()
        self._metadata, self._vocab_size, self._limit = metadata, vocab_size, limit
        self._exists = bool(metadata.values.get(f"{_PREFIX}tokens"))
        self.settings = read_settings(metadata) if self._exists else {}

    def exist(self) -> bool:
        """Whether the file has a vocabulary."""
        return self._exists

    def chat_template(self) -> str | None:
        """Return the file's own."""
        return self.settings.get("chat_template")

    def special_tokens(self) -> dict[str, str]:
        """Return the tokens that the file gives a role."""
        return {role: self.settings[role] for role in _ROLES.values() if role in self.settings}

    def _read(self) -> TextEncoder:
        backend = build(self._metadata, self._vocab_size)
        self._metadata.values.clear()  # the strings of a vocabulary take megabytes
        return TextEncoder(backend, limit=self._limit, special=self.special_tokens())


def read_settings(metadata: Metadata) -> dict[str, Any]:
    """Return what tokenizer_config.json would say."""
    tokens = _tokens(metadata)
    settings: dict[str, Any] = {}
    for role, name in _ROLES.items():
        key = f"{_PREFIX}{role}_token_id"
        index = metadata.get(key, int)
        if index is None:
            continue
        if not 0 <= index < len(tokens):
            raise metadata.fail(key, f"is {index}, the vocabulary has {len(tokens)} tokens")
        settings[name] = tokens[index]
    adds_bos = _model(metadata) == "llama" or _kind(metadata) in _WHOLE_WORDS
    settings["add_bos_token"] = metadata.get(f"{_PREFIX}add_bos_token", bool, adds_bos)
    settings["add_eos_token"] = metadata.get(f"{_PREFIX}add_eos_token", bool, False)
    if (template := metadata.get("tokenizer.chat_template", str)) is not None:
        settings["chat_template"] = template
    if (named := metadata.items("tokenizer.chat_templates", str)) is not None:
        settings["chat_templates"] = {
            name: metadata.need(f"tokenizer.chat_template.{name}", str) for name in named
        }
    return settings


def build(metadata: Metadata, vocab_size: int) -> Tokenizer:
    """Build the tokenizer.

    Raises
    ------
    ModelError
        A kind that is unknown, lists of different lengths, tokens that come twice or more of them
        than the model has: names the file and the key.
    """
    tokens = _tokens(metadata)
    if len(tokens) > vocab_size:
        raise metadata.fail(
            f"{_PREFIX}tokens", f"has {len(tokens)} tokens, the embedding table {vocab_size}"
        )
    vocab = {token: index for index, token in enumerate(tokens)}
    if len(vocab) != len(tokens):
        twice = next(t for i, t in enumerate(tokens) if vocab[t] != i)
        raise metadata.fail(f"{_PREFIX}tokens", f"token {twice!r} comes twice")
    types = _as_long(metadata, "token_type", metadata.items(f"{_PREFIX}token_type", int), tokens)
    model = _model(metadata)
    if model not in ("gpt2", "llama"):
        raise metadata.fail(f"{_PREFIX}model", f"is {model!r}; gpt2 and llama are read")
    try:
        if model == "gpt2":
            backend = _byte_level(metadata, vocab)
        else:
            backend = _sentence_piece(metadata, tokens, types)
        bpe.add_tokens(backend, tokens, types, unknown=model == "llama")
        _add_ends(metadata, backend, tokens)
    except ModelError:
        raise
    except Exception as error:  # the library raises plain Exception
        raise metadata.fail(f"{_PREFIX}model", f"{model}: {error}") from error
    return backend


def _tokens(metadata: Metadata) -> list[str]:
    tokens = metadata.items(f"{_PREFIX}tokens", str)
    if not tokens:
        raise metadata.fail(
            f"{_PREFIX}tokens", "is missing, so this model takes token ids but no text"
        )
    return tokens


def _model(metadata: Metadata) -> str:
    return metadata.need(f"{_PREFIX}model", str)


def _kind(metadata: Metadata) -> str:
    return metadata.get(f"{_PREFIX}pre", str, "default") or "default"


def _as_long(
    metadata: Metadata, name: str, items: list[Any] | None, tokens: list[str]
) -> list[Any]:
    if items is None:
        return [1] * len(tokens)
    if len(items) != len(tokens):
        raise metadata.fail(f"{_PREFIX}{name}", f"has {len(items)} items for {len(tokens)} tokens")
    return items


def _byte_level(metadata: Metadata, vocab: dict[str, int]) -> Tokenizer:
    """BPE on bytes, as GPT-2, Llama 3 and Granite have it."""
    kind = _kind(metadata)
    key = f"{_PREFIX}merges"
    merges = []
    for index, line in enumerate(metadata.items(key, str) or []):
        first, space, second = line.partition(" ")
        if not space or first not in vocab or second not in vocab or first + second not in vocab:
            raise metadata.fail(key, f"item {index}, {line!r}, does not merge tokens to a token")
        merges.append((first, second))
    if kind not in _SPLITS:
        raise metadata.fail(f"{_PREFIX}pre", f"is {kind!r}; known are {', '.join(_SPLITS)}")
    return bpe.byte_level(vocab, merges, _SPLITS[kind], whole_words=kind in _WHOLE_WORDS)


def _sentence_piece(metadata: Metadata, tokens: list[str], types: list[int]) -> Tokenizer:
    """SentencePiece's BPE, as Llama 2 has it."""
    scores = metadata.items(f"{_PREFIX}scores", float)
    if scores is None:
        raise metadata.fail(f"{_PREFIX}scores", "is missing")
    _as_long(metadata, "scores", scores, tokens)
    adds_space = metadata.get(f"{_PREFIX}add_space_prefix", bool, True)
    return bpe.sentence_piece(tokens, types, scores, adds_space=bool(adds_space))


def _add_ends(metadata: Metadata, backend: Tokenizer, tokens: list[str]) -> None:
    """Tokens before and after every text, where the file asks for them."""
    settings = read_settings(metadata)
    around = {}
    for role in ("bos", "eos"):
        if not settings[f"add_{role}_token"]:
            continue
        if (token := settings.get(f"{role}_token")) is None:
            if f"{_PREFIX}add_{role}_token" in metadata.values:
                raise metadata.fail(f"{_PREFIX}{role}_token_id", "is missing")
            continue
        around[role] = (token, tokens.index(token))
    bpe.add_ends(backend, around.get("bos"), around.get("eos"))
