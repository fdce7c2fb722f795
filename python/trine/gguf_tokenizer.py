# SPDX-License-Identifier: Apache-2.0
"""The tokenizer of a GGUF file, built with the `tokenizers` library from its metadata."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trine._core import ModelError
from trine.tokenization import TextEncoder
from trine.tokenizer_files import TokenizerSource

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.pre_tokenizers import PreTokenizer

    from trine.gguf import Metadata

_PREFIX = "tokenizer.ggml."

# tokenizer.ggml.token_type
_UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 2, 3, 4, 6

# GPT-2's split, which is also the one built into ByteLevel.
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CASELESS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_LLAMA3 = (
    _CASELESS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
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

_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"


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
            backend = _sentence_piece(metadata, tokens, vocab, types)
        _add_tokens(backend, tokens, types, unknown=model == "llama")
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
    from tokenizers import Tokenizer, decoders
    from tokenizers.models import BPE

    kind = _kind(metadata)
    key = f"{_PREFIX}merges"
    merges = []
    for index, line in enumerate(metadata.items(key, str) or []):
        first, space, second = line.partition(" ")
        if not space or first not in vocab or second not in vocab or first + second not in vocab:
            raise metadata.fail(key, f"item {index}, {line!r}, does not merge tokens to a token")
        merges.append((first, second))
    backend = Tokenizer(BPE(vocab, merges, ignore_merges=kind in _WHOLE_WORDS))
    backend.pre_tokenizer = _splitter(metadata, kind)
    backend.decoder = decoders.ByteLevel()
    return backend


def _splitter(metadata: Metadata, kind: str) -> PreTokenizer:
    from tokenizers import Regex, pre_tokenizers

    if kind not in _SPLITS:
        raise metadata.fail(f"{_PREFIX}pre", f"is {kind!r}; known are {', '.join(_SPLITS)}")
    steps: list[Any] = [
        pre_tokenizers.Split(Regex(expression), "isolated") for expression in _SPLITS[kind]
    ]
    return pre_tokenizers.Sequence(
        [*steps, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )


def _sentence_piece(
    metadata: Metadata, tokens: list[str], vocab: dict[str, int], types: list[int]
) -> Tokenizer:
    """SentencePiece's BPE, as Llama 2 has it: the pair whose token scores best is merged first."""
    from tokenizers import Tokenizer, decoders, normalizers
    from tokenizers.models import BPE

    scores = metadata.items(f"{_PREFIX}scores", float)
    if scores is None:
        raise metadata.fail(f"{_PREFIX}scores", "is missing")
    _as_long(metadata, "scores", scores, tokens)
    unknown = next((t for t, kind in zip(tokens, types, strict=True) if kind == _UNKNOWN), None)
    merges = _merges(tokens, vocab, types, scores)
    backend = Tokenizer(
        BPE(vocab, merges, unk_token=unknown, fuse_unk=True, byte_fallback=_BYTE in types)
    )
    replace: list[Any] = [normalizers.Replace(" ", _SPACE)]
    adds_space = metadata.get(f"{_PREFIX}add_space_prefix", bool, True)
    if adds_space:
        replace.insert(0, normalizers.Prepend(_SPACE))
    backend.normalizer = normalizers.Sequence(replace)
    steps: list[Any] = [
        decoders.Replace(_SPACE, " "),
        decoders.ByteFallback(),
        decoders.Fuse(),
    ]
    if adds_space:
        steps.append(decoders.Strip(" ", 1, 0))
    backend.decoder = decoders.Sequence(steps)
    return backend


def _merges(
    tokens: list[str], vocab: dict[str, int], types: list[int], scores: list[float]
) -> list[tuple[str, str]]:
    """Return all pairs of tokens that make a token, those of the best one first."""
    plain = [kind not in (_UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE) for kind in types]
    found = []
    for index, token in enumerate(tokens):
        if not plain[index]:
            continue
        for cut in range(1, len(token)):
            left, right = vocab.get(token[:cut]), vocab.get(token[cut:])
            if left is not None and right is not None and plain[left] and plain[right]:
                found.append((-scores[index], index, left, right))
    found.sort()
    return [(tokens[left], tokens[right]) for _, _, left, right in found]


def _add_tokens(backend: Tokenizer, tokens: list[str], types: list[int], *, unknown: bool) -> None:
    """Tokens that are found in a text as they are: control tokens and the user's own."""
    from tokenizers import AddedToken

    special = {_CONTROL, _UNKNOWN} if unknown else {_CONTROL}
    listed = list(zip(tokens, types, strict=True))
    backend.add_special_tokens(
        [AddedToken(t, normalized=False) for t, kind in listed if kind in special]
    )
    backend.add_tokens(
        [AddedToken(t, normalized=False) for t, kind in listed if kind == _USER_DEFINED]
    )


def _add_ends(metadata: Metadata, backend: Tokenizer, tokens: list[str]) -> None:
    """Tokens before and after every text, where the file asks for them."""
    from tokenizers import processors

    settings = read_settings(metadata)
    around = {}
    for role in ("bos", "eos"):
        if not settings[f"add_{role}_token"]:
            continue
        if (token := settings.get(f"{role}_token")) is None:
            if f"{_PREFIX}add_{role}_token" in metadata.values:
                raise metadata.fail(f"{_PREFIX}{role}_token_id", "is missing")
            continue
        around[role] = token
    if not around:
        return
    before = [f"{around['bos']}:0"] if "bos" in around else []
    after = [f"{around['eos']}:0"] if "eos" in around else []
    pair = [part.replace(":0", ":1") for part in (*before, "$B:0", *after)]
    backend.post_processor = processors.TemplateProcessing(
        single=[*before, "$A:0", *after],
        pair=[*before, "$A:0", *after, *pair],
        special_tokens=[(token, tokens.index(token)) for token in around.values()],
    )
