# SPDX-License-Identifier: Apache-2.0
"""Tokenizers by byte pair encoding, built with the `tokenizers` library from what files list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenizers import Tokenizer

# Kinds of tokens: sentencepiece_model.proto's, which GGUF has, too.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)

# GPT-2's split, which is also the one built into ByteLevel.
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
    r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"


def byte_level(
    vocab: dict[str, int],
    merges: list[tuple[str, str]],
    splits: Sequence[str],
    *,
    whole_words: bool,
) -> Tokenizer:
    """BPE on bytes, as GPT-2, Llama 3 and Granite have it.

    Parameters
    ----------
    vocab, merges
        Over the characters that stand for bytes.
    splits : sequence of str
        Expressions whose matches are cut out one after the other.
    whole_words : bool
        A word that is in the vocabulary is one token, whatever the merges say.
    """
    from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE

    backend = Tokenizer(BPE(vocab, merges, ignore_merges=whole_words))
    steps: list[Any] = [
        pre_tokenizers.Split(Regex(expression), "isolated") for expression in splits
    ]
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [*steps, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    backend.decoder = decoders.ByteLevel()
    return backend


def sentence_piece(
    tokens: list[str], types: list[int], scores: list[float], *, adds_space: bool
) -> Tokenizer:
    """SentencePiece's BPE, as Llama 2 has it: the pair whose token scores best is merged first.

    Parameters
    ----------
    tokens, types, scores
        By id.
    adds_space : bool
        A text begins with a space that is not in it.
    """
    from tokenizers import Tokenizer, decoders, normalizers
    from tokenizers.models import BPE

    vocab = {token: index for index, token in enumerate(tokens)}
    unknown = next((t for t, kind in zip(tokens, types, strict=True) if kind == UNKNOWN), None)
    merges = _merges(tokens, vocab, types, scores)
    backend = Tokenizer(
        BPE(vocab, merges, unk_token=unknown, fuse_unk=True, byte_fallback=BYTE in types)
    )
    replace: list[Any] = [normalizers.Replace(" ", _SPACE)]
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
    plain = [kind not in (UNKNOWN, CONTROL, USER_DEFINED, BYTE) for kind in types]
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


def ranked_merges(ranks: dict[str, int]) -> list[tuple[str, str]]:
    """Return all pairs of tokens that make a token, by its rank: tiktoken lists tokens alone."""
    found = []
    for token, rank in ranks.items():
        for cut in range(1, len(token)):
            left, right = ranks.get(token[:cut]), ranks.get(token[cut:])
            if left is not None and right is not None:
                found.append((rank, left, right, cut))
    found.sort()
    tokens = {rank: token for token, rank in ranks.items()}
    return [(tokens[rank][:cut], tokens[rank][cut:]) for rank, _, _, cut in found]


def add_tokens(backend: Tokenizer, tokens: list[str], types: list[int], *, unknown: bool) -> None:
    """Tokens that are found in a text as they are: control tokens and the user's own."""
    from tokenizers import AddedToken

    special = {CONTROL, UNKNOWN} if unknown else {CONTROL}
    listed = list(zip(tokens, types, strict=True))
    backend.add_special_tokens(
        [AddedToken(t, normalized=False) for t, kind in listed if kind in special]
    )
    backend.add_tokens(
        [AddedToken(t, normalized=False) for t, kind in listed if kind == USER_DEFINED]
    )


def add_ends(
    backend: Tokenizer, before: tuple[str, int] | None, behind: tuple[str, int] | None
) -> None:
    """Put tokens, given with their ids, before and behind every text."""
    from tokenizers import processors

    if before is None and behind is None:
        return
    first = [f"{before[0]}:0"] if before else []
    last = [f"{behind[0]}:0"] if behind else []
    second = [part.replace(":0", ":1") for part in (*first, "$B:0", *last)]
    backend.post_processor = processors.TemplateProcessing(
        single=[*first, "$A:0", *last],
        pair=[*first, "$A:0", *last, *second],
        special_tokens=[token for token in (before, behind) if token is not None],
    )
