# SPDX-License-Identifier: Apache-2.0
"""Find and read the tokenizer of a checkpoint folder."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Literal

from trine import chat
from trine._core import ModelError
from trine.files import read_json, read_optional_json
from trine.tokenization import TextEncoder

if TYPE_CHECKING:
    from pathlib import Path

    from tokenizers import Tokenizer
    from tokenizers.normalizers import Normalizer

# Fields of tokenizer_config.json that name special tokens, with MPNet's own choice.
_MPNET_SPECIAL = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "sep_token": "</s>",
    "cls_token": "<s>",
    "unk_token": "[UNK]",
    "pad_token": "<pad>",
    "mask_token": "<mask>",
}

_NAMES = ("tokenizer.json", "vocab.txt", "spm.model")

# "no limit" is stored as 1e30 by transformers.
_UNLIMITED = 10**9


class TokenizerSource(ABC):
    """A tokenizer that is read at first use: a model without one loads, and runs token ids."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._encoder: TextEncoder | None = None

    @abstractmethod
    def exist(self) -> bool:
        """Whether there is a tokenizer that can be read."""

    @abstractmethod
    def _read(self) -> TextEncoder:
        """Read it; ModelError if it is missing or broken."""

    @abstractmethod
    def chat_template(self) -> str | None:
        """Return the template of conversations, if there is one."""

    @abstractmethod
    def special_tokens(self) -> dict[str, str]:
        """Return special tokens by role, as templates name them: ``bos_token`` and others."""

    def prefetch(self) -> None:
        """Read it in the background, while weights are being packed."""
        if self.exist():
            threading.Thread(target=self._try, name="trine-tokenizer", daemon=True).start()

    def encoder(self) -> TextEncoder:
        """Read it if that is still to be done.

        Raises
        ------
        ModelError
            No tokenizer, or one that cannot be read: names the file.
        """
        if self._encoder is None:
            with self._lock:
                if self._encoder is None:
                    self._encoder = self._read()
        return self._encoder

    def _try(self) -> None:
        try:
            self.encoder()
        except ModelError:  # the first call with text meets it again, and reports it
            return


class TokenizerFiles(TokenizerSource):
    """A folder's tokenizer, read at first use.

    Parameters
    ----------
    folder : Path
        Where ``tokenizer.json``, ``vocab.txt`` or ``spm.model`` lie; the first of them is read.
    config : dict
        The model's config.json.
    max_seq_length : int or None
        Most tokens of a text, as sentence_bert_config.json has it: goes before the tokenizer's own
        ``model_max_length``.
    most : int or None
        Most tokens that the architecture can take.
    usual : int or None
        Where none of these is there: the length that the model was trained on.
    lowercase : bool
        Lower-case every text first (sentence_bert_config.json's ``do_lower_case``).
    token_types : bool
        Whether the model reads segment ids.
    """

    def __init__(
        self,
        folder: Path,
        config: dict[str, Any],
        *,
        max_seq_length: int | None = None,
        most: int | None = None,
        usual: int | None = None,
        lowercase: bool = False,
        token_types: bool = False,
    ) -> None:
        super().__init__()
        self._folder, self._config = folder, config
        self._max_seq_length, self._most, self._usual = max_seq_length, most, usual
        self._lowercase, self._token_types = lowercase, token_types

    def exist(self) -> bool:
        """Whether the folder has tokenizer files that can be read."""
        return self._encoder is not None or self._file() is not None

    def chat_template(self) -> str | None:
        """Return what the folder's files say; ModelError about a broken one."""
        return chat.read_template(self._folder)

    def special_tokens(self) -> dict[str, str]:
        """Return what the folder's files say; ModelError about a broken one."""
        return chat.special_tokens(self._folder)

    def _file(self) -> Path | None:
        for name in _NAMES:
            if (path := self._folder / name).is_file():
                return path
        return None

    def _read(self) -> TextEncoder:
        path = self._file()
        if path is None:
            raise ModelError(
                f"{self._folder}: no tokenizer.json, no vocab.txt and no spm.model, so this model "
                "takes token ids but no text"
            )
        settings = read_optional_json(self._folder / "tokenizer_config.json")
        if path.name == "spm.model":
            backend, special = self._from_spm(path, settings)
        else:
            special = _special_tokens(self._folder, settings)
            is_json = path.name == "tokenizer.json"
            backend = _from_json(path) if is_json else self._from_vocab(path, settings, special)
            if self._is_deberta(settings):
                from trine import deberta_tokenizer

                special = deberta_tokenizer.SPECIAL | special
        backend.no_padding()
        backend.no_truncation()
        if self._lowercase:
            _add_lowercase(backend)
        side: Literal["left", "right"] = (
            "left" if settings.get("truncation_side") == "left" else "right"
        )
        wanted = self._max_seq_length or settings.get("model_max_length")
        return TextEncoder(
            backend,
            limit=least(wanted, self._most) or self._usual,
            token_types=self._token_types,
            side=side,
            special=special,
        )

    def _from_vocab(
        self, path: Path, settings: dict[str, Any], special: dict[str, str]
    ) -> Tokenizer:
        if self._config.get("model_type") != "mpnet":
            raise ModelError(
                f"{path}: a vocab.txt alone is read for model_type 'mpnet' only, config.json says "
                f"{self._config.get('model_type')!r}; a tokenizer.json is needed"
            )
        return _mpnet_word_piece(path, settings, _MPNET_SPECIAL | special)

    def _from_spm(self, path: Path, settings: dict[str, Any]) -> tuple[Tokenizer, dict[str, str]]:
        if not self._is_deberta(settings):
            raise ModelError(
                f"{path}: a spm.model alone is read for model_type 'deberta-v2' only, config.json "
                f"says {self._config.get('model_type')!r}; a tokenizer.json is needed"
            )
        from trine import deberta_tokenizer

        return deberta_tokenizer.build(path, settings)

    def _is_deberta(self, settings: dict[str, Any]) -> bool:
        name = str(settings.get("tokenizer_class", ""))
        return name.startswith("DebertaV2") or self._config.get("model_type") == "deberta-v2"


def least(*limits: object) -> int | None:
    """Return the least of the limits that are numbers, or None without any."""
    numbers = [int(n) for n in limits if isinstance(n, int | float) and 0 < n < _UNLIMITED]
    return min(numbers, default=None)


def _special_tokens(folder: Path, settings: dict[str, Any]) -> dict[str, str]:
    """Return special tokens by role; each is a string or an object with `content`."""
    tokens = read_optional_json(folder / "special_tokens_map.json") | settings
    special = {}
    for role in _MPNET_SPECIAL:
        token = tokens.get(role)
        if isinstance(token, dict):
            token = token.get("content")
        if isinstance(token, str):
            special[role] = token
    return special


def _from_json(path: Path) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models

    try:
        backend = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        read_json(path)  # a file that isn't JSON at all gets the clearer message
        raise ModelError(f"{path}: {error}") from error
    if backend.decoder is None and isinstance(backend.model, models.WordPiece):
        prefix = backend.model.continuing_subword_prefix
        backend.decoder = decoders.WordPiece(prefix=prefix)  # as transformers' classes have it
    return backend


def _mpnet_word_piece(path: Path, settings: dict[str, Any], special: dict[str, str]) -> Tokenizer:
    """Build what transformers' MPNetTokenizer makes of a vocab.txt."""
    from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
    from tokenizers.models import WordPiece

    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: {error}") from error
    vocab = {token: index for index, token in enumerate(lines)}
    if missing := sorted({t for t in special.values() if t not in vocab}):
        raise ModelError(f"{path}: the special tokens {missing} are not in the vocabulary")
    backend = Tokenizer(WordPiece(vocab, unk_token=special["unk_token"]))
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
        strip_accents=settings.get("strip_accents"),
        lowercase=settings.get("do_lower_case", True),
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    cls, sep = special["cls_token"], special["sep_token"]
    backend.post_processor = processors.RobertaProcessing(
        (sep, vocab[sep]), (cls, vocab[cls]), trim_offsets=True, add_prefix_space=False
    )
    # The mask behaves like a word: it takes the space before it along.
    backend.add_special_tokens(
        [AddedToken(t, lstrip=role == "mask_token") for role, t in special.items()]
    )
    return backend


def _add_lowercase(backend: Tokenizer) -> None:
    from tokenizers import normalizers

    def lowers(normalizer: Normalizer | None) -> bool:
        if isinstance(normalizer, normalizers.Sequence):
            return any(lowers(normalizer[i]) for i in range(len(normalizer)))
        if isinstance(normalizer, normalizers.BertNormalizer):
            return normalizer.lowercase
        return isinstance(normalizer, normalizers.Lowercase)

    present = backend.normalizer
    if not lowers(present):
        lower = normalizers.Lowercase()
        chain = [lower] if present is None else [lower, present]
        backend.normalizer = normalizers.Sequence(chain)
