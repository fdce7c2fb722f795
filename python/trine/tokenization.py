# SPDX-License-Identifier: Apache-2.0
"""Text to token ids, on top of the `tokenizers` library.

Truncation is done here and not by the library's own settings: callers are told how many tokens
were cut, and a tokenizer shared by threads is never reconfigured.
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from trine._core import InputError
from trine.arguments import check_known, check_text
from trine.batching import Tokens, offsets_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tokenizers import Encoding, Tokenizer

# Characters from which on a text is worth the detour that frees the GIL.
_LONG = 20_000

Strategy = Literal["longest_first", "only_first", "only_second"]
Side = Literal["right", "left"]
Text = str | tuple[str, str]


class TextEncoder:
    """One model's tokenizer with its length limit. Safe to use from many threads.

    Parameters
    ----------
    backend : tokenizers.Tokenizer
        With its own padding and truncation switched off.
    limit : int or None
        Most tokens of a sequence, special tokens included; None for no limit.
    token_types : bool
        Whether the model has segment embeddings.
    side : {"right", "left"}
        Which end of a text is cut when it is too long.
    special : dict of str to str, or None
        Special tokens by the role that tokenizer_config.json gives them, such as ``mask_token``.
    """

    def __init__(
        self,
        backend: Tokenizer,
        *,
        limit: int | None,
        token_types: bool = False,
        side: Side = "right",
        special: dict[str, str] | None = None,
    ) -> None:
        self.backend = backend
        self.limit = limit
        self.token_types = token_types
        self.side: Side = side
        self.special = special or {}

    def special_id(self, role: str) -> int | None:
        """Return the id of the special token that plays a role, such as ``mask_token``."""
        token = self.special.get(role)
        return None if token is None else self.backend.token_to_id(token)

    def encode(
        self,
        text: Text,
        *,
        limit: int | None = None,
        strategy: Strategy = "longest_first",
        what: str = "the text",
        side: Side | None = None,
    ) -> tuple[Encoding, int]:
        """Encode a text or a pair with its special tokens.

        Parameters
        ----------
        text : str or (str, str)
        limit : int or None
            Most tokens; by default the model's.
        strategy : {"longest_first", "only_first", "only_second"}
            Which member of a pair is cut.
        what : str
            Which text this is, for messages.
        side : {"right", "left"} or None
            Which end is cut; by default the model's.

        Returns
        -------
        encoding : tokenizers.Encoding
        cut : int
            Tokens taken away; 0 if the text fits.

        Raises
        ------
        InputError
            The part that may be cut is too short for the rest to fit; half of a surrogate pair.
        """
        limit = self.limit if limit is None else limit
        first, second = text if isinstance(text, tuple) else (text, None)
        encoding = self._whole(first, second, what)
        if limit is None or len(encoding) <= limit:
            return encoding, 0
        texts = (first,) if second is None else (first, second)
        parts = [self.encoding(t, special=False) for t in texts]
        room = limit - self.backend.num_special_tokens_to_add(second is not None)
        sizes = _fit([len(part) for part in parts], room, strategy, limit)
        cut = sum(len(part) for part in parts) - sum(sizes)
        for part, size in zip(parts, sizes, strict=True):
            part.truncate(size, direction=side or self.side)
        return self._finish(parts), cut

    def windows(
        self, text: Text, *, stride: int, limit: int | None = None, what: str = "the text"
    ) -> list[Encoding]:
        """Encode a long text as overlapping windows, each with special tokens.

        A pair keeps its first member whole in every window; its second one is cut up.

        Parameters
        ----------
        text : str or (str, str)
        stride : int
            Tokens that a window shares with the one before it.
        limit : int or None
            Most tokens of a window; by default the model's.
        what : str
            Which text this is, for messages.

        Raises
        ------
        InputError
            The first member of a pair leaves no room for the second; half of a surrogate pair; a
            negative stride.
        """
        if stride < 0:
            raise InputError(f"windows cannot share {stride} tokens")
        limit = self.limit if limit is None else limit
        first, second = text if isinstance(text, tuple) else (text, None)
        encoding = self._whole(first, second, what)
        if limit is None or len(encoding) <= limit:
            return [encoding]
        fixed = [] if second is None else [self.encoding(first, special=False)]
        moving = self.encoding(first if second is None else second, special=False)
        room = limit - self.backend.num_special_tokens_to_add(second is not None)
        room -= sum(len(part) for part in fixed)
        if room < 1:
            raise InputError(f"the first text alone has more than the limit of {limit} tokens")
        moving.truncate(room, stride=min(stride, room - 1))
        pieces = [moving, *moving.overflowing]
        return [self._finish([*fixed, piece]) for piece in pieces]

    def prompt_ids(self, prompt: str, *, special: bool, what: str) -> list[int]:
        """Encode a prompt, never cut, with the special tokens that the tokenizer adds or without.

        Raises
        ------
        InputError
            Half of a surrogate pair.
        """
        return self._whole(prompt, None, what, special=special).ids

    def _whole(
        self, first: str, second: str | None, what: str, *, special: bool = True
    ) -> Encoding:
        try:
            return self.encoding(first, second, special=special)
        except TypeError:  # what the library says of a text that isn't Unicode helps nobody
            check_text(what, first)
            if second is not None:
                check_text(what, second)
            raise

    def encoding(self, first: str, second: str | None = None, *, special: bool) -> Encoding:
        """Encode a text or a pair, uncut, without holding up other threads where it takes long.

        The library's ``encode`` holds the GIL from beginning to end, ``encode_batch`` doesn't.
        """
        if len(first) + len(second or "") < _LONG:
            return self.backend.encode(first, second, add_special_tokens=special)
        item = first if second is None else (first, second)
        return self.backend.encode_batch([item], add_special_tokens=special)[0]

    def _finish(self, parts: list[Encoding]) -> Encoding:
        """Add special tokens to one or two parts."""
        return self.backend.post_process(parts[0], parts[1] if len(parts) > 1 else None)

    def tokens(
        self,
        texts: Iterable[Text],
        *,
        limit: int | None = None,
        truncate: bool = True,
        strategy: Strategy = "longest_first",
        side: Side | None = None,
        first: int = 0,
    ) -> Tokens:
        """Encode many texts or pairs into one ragged batch.

        Parameters
        ----------
        texts : iterable of str or (str, str)
        limit, strategy, side
            As for `encode`.
        truncate : bool
            False to refuse texts that are too long.
        first : int
            Index of the first text in the caller's input, for messages.

        Raises
        ------
        InputError
            With `truncate` false: names the index, the length and the limit. An unknown side.
        """
        if side is not None:
            check_known("truncation_side", side, get_args(Side))
        encodings: list[Encoding] = []
        truncated: list[int] = []
        for index, text in enumerate(texts, first):
            encoding, cut = self.encode(
                text, limit=limit, strategy=strategy, side=side, what=f"input {index}"
            )
            if cut and not truncate:
                most = self.limit if limit is None else limit
                raise InputError(
                    f"input {index} has {len(encoding) + cut} tokens, the limit is {most} "
                    "(truncate=True would cut it)"
                )
            encodings.append(encoding)
            truncated.append(cut)
        return self.join(encodings, truncated)

    def join(self, encodings: Sequence[Encoding], truncated: list[int] | None = None) -> Tokens:
        """Lay encodings end to end."""
        ids = [encoding.ids for encoding in encodings]
        types = [encoding.type_ids for encoding in encodings] if self.token_types else None
        return Tokens(
            ids=_flat(ids),
            offsets=offsets_of([len(row) for row in ids]),
            truncated=[0] * len(ids) if truncated is None else truncated,
            token_types=None if types is None else _flat(types),
        )

    def prompt_length(self, prompt: str, limit: int | None) -> int:
        """Tokens of `prompt` at the front of a text, as sentence-transformers counts them.

        The prompt is encoded alone; a special token that ends it doesn't count.
        """
        encoding, _ = self.encode(prompt, limit=limit, what="the prompt")
        ids_at_end = encoding.special_tokens_mask[-1:]
        return len(encoding) - sum(ids_at_end)


def with_marks(text: str, end: int, limit: int) -> int:
    """Return where a token ends that is said to end at `end`, marks on its last letter included.

    Normalisers that compose or drop combining marks align the result with the letter alone.
    """
    while end < limit and unicodedata.combining(text[end]):
        end += 1
    return end


def _flat(rows: list[list[int]]) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    return np.array([value for row in rows for value in row], np.int32)


def _fit(sizes: list[int], room: int, strategy: Strategy, limit: int) -> list[int]:
    """Return how many tokens of each part to keep, as the `tokenizers` library divides them."""
    if room < 0:
        raise InputError(f"a limit of {limit} tokens leaves no room beside the special tokens")
    if len(sizes) == 1:
        return [room]
    if strategy == "longest_first":
        short, long = sorted(sizes)
        long = max(short, room - short)
        if short + long > room:
            short, long = room // 2, room - room // 2
        return [short, long] if sizes[0] <= sizes[1] else [long, short]
    index = 0 if strategy == "only_first" else 1
    kept = room - sizes[1 - index]
    if kept < 1:
        raise InputError(
            f"the {('second', 'first')[index]} text of a pair has {sizes[1 - index]} tokens: "
            f"with a limit of {limit} nothing of the other is left"
        )
    return [kept, sizes[1]] if index == 0 else [sizes[0], kept]
