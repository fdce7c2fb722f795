# SPDX-License-Identifier: Apache-2.0
"""What transformers' DebertaV2Tokenizer makes of an ``spm.model`` and the small files beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trine import sentencepiece
from trine._core import ModelError
from trine.files import read_optional_json

if TYPE_CHECKING:
    from pathlib import Path

    from tokenizers import AddedToken, Tokenizer
    from tokenizers.normalizers import Normalizer

    from trine.sentencepiece import SentencePiece

# Special tokens by role. Those that the vocabulary lacks get the ids after it, in this order.
SPECIAL = {
    "bos_token": "[CLS]",
    "eos_token": "[SEP]",
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}

_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


@dataclass
class _Added:
    """Tokens that text is split at, as the JSON files name them."""

    roles: dict[str, AddedToken] = field(default_factory=dict)
    stored: dict[int, AddedToken] = field(default_factory=dict)  # with the ids they must get
    extra: list[AddedToken] | None = None  # None: the file has no list, so the spm's pieces hold


def build(path: Path, settings: dict[str, Any]) -> tuple[Tokenizer, dict[str, str]]:
    """Build the tokenizer.

    Parameters
    ----------
    path : Path
        spm.model; special_tokens_map.json and added_tokens.json may lie beside it.
    settings : dict
        tokenizer_config.json.

    Returns
    -------
    backend : tokenizers.Tokenizer
    special : dict of str to str
        Special tokens by role.

    Raises
    ------
    ModelError
        A broken file, or files that contradict each other: names the file and what.

    Notes
    -----
    By default text is normalised as transformers 5 does (NFC; runs of white space and line ends
    become one space), which leaves the table of the spm.model aside. With
    ``"spm_normalizer": true`` in tokenizer_config.json that table is used, as transformers 4 did.
    """
    model = sentencepiece.read(path)
    config = path.with_name("tokenizer_config.json")
    kind = settings.get("vocab_type", "spm")
    if kind != "spm":
        raise ModelError(f"{config}: vocab_type is {kind!r}, expected 'spm'")
    by_spm = _flag(settings, "spm_normalizer", config, default=False)
    added = _read_added(path.parent, settings)
    backend = _unigram(path, model, added.roles["unk_token"].content, by_spm=by_spm)
    lower = _flag(settings, "do_lower_case", config, default=False)
    if by_spm:
        backend.normalizer = _spm_normalizer(path, model, lower=lower)
    else:
        backend.normalizer = _normalizer(lower=lower)
    prefix = _flag(settings, "add_prefix_space", config, default=True)
    scheme = "never" if by_spm and not model.add_dummy_prefix else "always" if prefix else "first"
    split = _flag(settings, "split_by_punct", config, default=False)
    _split_words(backend, scheme, split_by_punct=split)
    _add_tokens(backend, added, model, path.parent)
    special = {role: token.content for role, token in added.roles.items()}
    _add_template(backend, special)
    backend.encode_special_tokens = _flag(settings, "split_special_tokens", config, default=False)
    return backend, special


def _unigram(path: Path, model: SentencePiece, unknown: str, *, by_spm: bool) -> Tokenizer:
    from tokenizers import Tokenizer
    from tokenizers.models import Unigram

    pieces = model.pieces
    unk_id = pieces.index((unknown, 0.0)) if (unknown, 0.0) in pieces else model.unk_id
    fallback = by_spm and bool(model.byte_fallback)
    try:
        return Tokenizer(Unigram(pieces, unk_id=unk_id, byte_fallback=fallback))
    except Exception as error:  # the library raises plain Exception
        raise ModelError(f"{path}: {error}") from error


def _normalizer(*, lower: bool) -> Normalizer:
    """Return what transformers 5 has in place of the spm's own normalisation."""
    from tokenizers import Regex, normalizers

    steps: list[Normalizer] = [normalizers.Lowercase()] if lower else []
    steps += [
        normalizers.Replace(Regex(r"\s{2,}|[\n\r\t]"), " "),
        normalizers.NFC(),
        normalizers.Strip(left=False, right=True),
    ]
    return normalizers.Sequence(steps)


def _spm_normalizer(path: Path, model: SentencePiece, *, lower: bool) -> Normalizer:
    """Return the spm's own normalisation, in the order that transformers 4 has."""
    from tokenizers import Regex, normalizers

    steps: list[Normalizer] = [normalizers.Lowercase()] if lower else []
    if model.remove_extra_whitespaces:
        steps.append(normalizers.Strip())
    if model.precompiled_charsmap:
        sentencepiece.check_charsmap(path, model.precompiled_charsmap)
        steps.append(normalizers.Precompiled(model.precompiled_charsmap))
    if model.remove_extra_whitespaces:
        steps.append(normalizers.Replace(Regex(" {2,}"), " "))
    return normalizers.Sequence(steps)


def _split_words(backend: Tokenizer, scheme: str, *, split_by_punct: bool) -> None:
    from tokenizers import decoders, pre_tokenizers

    space: Any = {"replacement": "\u2581", "prepend_scheme": scheme}
    steps = [pre_tokenizers.Punctuation(behavior="isolated")] if split_by_punct else []
    backend.pre_tokenizer = pre_tokenizers.Sequence([*steps, pre_tokenizers.Metaspace(**space)])
    backend.decoder = decoders.Metaspace(**space)


def _add_template(backend: Tokenizer, special: dict[str, str]) -> None:
    from tokenizers import processors

    cls, sep = special["cls_token"], special["sep_token"]
    # Lists: in a text with spaces a token that has one itself would fall apart.
    backend.post_processor = processors.TemplateProcessing(
        single=[f"{cls}:0", "$A:0", f"{sep}:0"],
        pair=[f"{cls}:0", "$A:0", f"{sep}:0", "$B:1", f"{sep}:1"],
        special_tokens=[(token, backend.token_to_id(token)) for token in {cls, sep}],
    )


# Added tokens ----------------------------------------------------------------------------------


def _add_tokens(backend: Tokenizer, added: _Added, model: SentencePiece, folder: Path) -> None:
    """Add tokens in the order of transformers: of the files, by role, then the rest.

    The order gives ids to those that the vocabulary lacks; of two with one text the later one's
    flags hold.
    """
    from tokenizers import AddedToken as New

    extra = added.extra
    if extra is None:
        extra = [New(text, normalized=False, special=is_ctrl) for text, is_ctrl in model.added()]
    tokens = [added.stored[index] for index in sorted(added.stored)]
    stored = {token.content for token in tokens}
    for token in (*added.roles.values(), *extra):
        if token.content not in stored and token not in tokens:
            tokens.append(token)
    named = {token.content for token in added.roles.values()}
    for token in tokens:
        token.special = token.special or token.content in named
    backend.add_tokens(tokens)
    for index, token in added.stored.items():
        if (given := backend.token_to_id(token.content)) != index:
            raise ModelError(
                f"{folder}: the added token {token.content!r} is said to have the id {index}, "
                f"beside spm.model it gets {given}"
            )


def _read_added(folder: Path, settings: dict[str, Any]) -> _Added:
    """Read tokenizer_config.json, and the older files, which count where it lists no ids."""
    config = folder / "tokenizer_config.json"
    decoder = settings.get("added_tokens_decoder")
    named = {role: (settings[role], config) for role in SPECIAL if settings.get(role) is not None}
    if decoder is None:
        path = folder / "special_tokens_map.json"
        mapped = read_optional_json(path)
        named |= {role: (mapped[role], path) for role in SPECIAL if mapped.get(role) is not None}
    roles = {role: _token(value, path) for role, (value, path) in named.items()}
    found = _Added({role: _token(SPECIAL[role], config) for role in SPECIAL} | roles)
    extra = settings.get("extra_special_tokens")
    if not extra and "additional_special_tokens" in settings:
        extra = settings["additional_special_tokens"]
    if isinstance(extra, dict):  # by names of their own
        found.roles |= {name: _token(value, config) for name, value in extra.items()}
    elif isinstance(extra, list):
        found.extra = [_token(value, config) for value in extra]
    elif extra is not None:
        raise ModelError(f"{config}: extra_special_tokens is no list")
    if decoder is None:
        special = {token.content for token in (*roles.values(), *(found.extra or []))}
        path = folder / "added_tokens.json"
        for text, index in read_optional_json(path).items():
            known = text in special
            token = {"content": text, "normalized": not known, "special": known}
            found.stored[_index(index, path)] = _token(token, path)
    elif isinstance(decoder, dict):
        for index, value in decoder.items():
            found.stored[_index(index, config)] = _token(value, config, special=False)
    else:
        raise ModelError(f"{config}: added_tokens_decoder is no object")
    return found


def _index(value: object, path: Path) -> int:
    try:
        index = int(value) if isinstance(value, int | str) else -1
    except ValueError:
        index = -1
    if index < 0:
        raise ModelError(f"{path}: {value!r} is no id of an added token")
    return index


def _token(value: object, path: Path, *, special: bool = True) -> AddedToken:
    """Return a token that is stored as text, or as an object with `content` and flags."""
    from tokenizers import AddedToken as New

    if isinstance(value, str):
        value = {"content": value}
    if not isinstance(value, dict) or not isinstance(value.get("content"), str):
        raise ModelError(f"{path}: {value!r} is no token, expected a text or one with 'content'")
    flags = {name: value[name] for name in _FLAGS if isinstance(value.get(name), bool)}
    if not value["content"]:
        raise ModelError(f"{path}: a special token is an empty text")
    return New(value["content"], **{"special": special} | flags)


def _flag(settings: dict[str, Any], name: str, path: Path, *, default: bool) -> bool:
    value = settings.get(name, default)
    if not isinstance(value, bool):
        raise ModelError(f"{path}: {name} is {value!r}, expected true or false")
    return value
