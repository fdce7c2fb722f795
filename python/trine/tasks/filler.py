# SPDX-License-Identifier: Apache-2.0
"""Texts with masks to what could stand there: masked language models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, TypedDict

import numpy as np
from numpy.typing import NDArray

from trine._core import InputError, ModelError
from trine.arguments import check_int, check_texts
from trine.numerics import softmax
from trine.progress import Progress
from trine.tasks.base import Task
from trine.tasks.inputs import as_list, windows

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trine.batching import Int32
    from trine.tokenization import TextEncoder

Float32 = NDArray[np.float32]


class Candidate(TypedDict):
    """A token that could stand in place of a mask; no texts where there is no tokenizer."""

    token: int
    score: float
    text: str | None
    sequence: str | None


class Filler(Task):
    """Fills masks in texts.

    Examples
    --------
    >>> import trine
    >>> with trine.load("tests/golden/examples/fill") as model:
    ...     (found,) = model.predict("<mask> is the capital of Norway.", top_k=1)
    >>> found[0]["text"], found[0]["sequence"]
    ('oslo', 'oslo is the capital of norway.')
    """

    needs: ClassVar = ("logits",)

    def predict(
        self,
        inputs: Any,
        *,
        batch_size: int | None = None,
        show_progress: bool | None = None,
        top_k: int = 5,
        targets: str | Iterable[str] | None = None,
        mask_token_id: int | None = None,
        truncate: bool = True,
    ) -> Any:
        """Fill the masks of texts.

        Parameters
        ----------
        inputs : list of str, or of token ids
            Each with at least one mask (`mask_token`); a single one gives a single result.
        batch_size : int or None
            Most texts of one run; results don't depend on it.
        show_progress : bool or None
            Draw a bar on standard error.
        top_k : int
            Candidates for each mask.
        targets : str or iterable of str or None
            Score these tokens only; a text of several tokens counts as its first.
        mask_token_id : int or None
            The id of a mask; by default the tokenizer's, or without a tokenizer what config.json
            has under this name.
        truncate : bool
            False to refuse texts that are too long instead of cutting them.

        Returns
        -------
        list of list of list of {"token": int, "score": float, "text": str, "sequence": str}
            For each text, for each of its masks, the candidates, best first: id, probability, the
            token as text, and the whole text with the mask filled. Without a tokenizer, which
            token ids don't need, both texts are None.

        Raises
        ------
        InputError
            A text without a mask (or with its mask cut off), no usable target, no tokenizer and
            nothing else that says which id is the mask, or with `truncate` false a text that is
            too long.
        ModelError
            Texts or targets for a model without tokenizer.

        Notes
        -----
        Probabilities are those of transformers' fill-mask pipeline: each mask by itself.
        """
        top_k = check_int("top_k", top_k)
        items, single = as_list(inputs)
        if any(isinstance(item, str) for item in items):
            _ = self._encoder  # without a tokenizer, that is what to say first
        mask = self._mask_id(mask_token_id)
        chosen = None if targets is None else self._target_ids(targets)
        progress = Progress(len(items), shown=show_progress)
        results: list[Any] = [None] * len(items)
        for start, part in windows(items):
            tokens = self._ragged(part, start, truncate=truncate)
            for index, row in enumerate(tokens):
                if mask not in row:
                    name = self.mask_token if self._tokenizer.exist() else f"mask, id {mask},"
                    raise InputError(
                        f"input {start + index} has no {name} among its first {len(row)} tokens"
                    )
            for rows, batch, outputs in self._runs(
                tokens, self.needs, batch_size=batch_size, progress=progress
            ):
                for index, row in enumerate(rows):
                    here = slice(batch.offsets[index], batch.offsets[index + 1])
                    ids = batch.ids[here]
                    scores = softmax(outputs["logits"][here][ids == mask])
                    results[start + row] = self._candidates(ids, mask, scores, top_k, chosen)
        return results[0] if single else results

    @property
    def mask_token(self) -> str:
        """The text that stands for a mask."""
        return self._encoder.special.get("mask_token", "<mask>")

    def _mask_id(self, given: int | None) -> int:
        if given is not None:
            return check_int("mask_token_id", given, 0)
        if not self._tokenizer.exist():
            if (named := self.config.get("mask_token_id")) is None:
                raise InputError(
                    "mask_token_id: neither a tokenizer nor config.json says which id is the mask"
                )
            return check_int("mask_token_id in config.json", named, 0)
        mask = self._encoder.special_id("mask_token")
        if mask is None:
            mask = self._encoder.backend.token_to_id(self.mask_token)
        if mask is None:
            raise ModelError(
                f"{self._checkpoint.folder}: tokenizer_config.json names no mask_token that the "
                "vocabulary has"
            )
        return mask

    def _target_ids(self, targets: str | Iterable[str]) -> Int32:
        backend = self._encoder.backend
        found = []
        for target in check_texts("targets", [targets] if isinstance(targets, str) else targets):
            token = backend.token_to_id(target)
            if token is None:
                pieces = backend.encode(target, add_special_tokens=False).ids
                if not pieces:
                    raise InputError(f"targets: {target!r} is not in the vocabulary")
                token = pieces[0]
            found.append(token)
        if not found:
            raise InputError("targets: at least one is needed")
        return np.array(sorted(set(found)), np.int32)

    def _candidates(
        self, ids: Int32, mask: int, scores: Float32, top_k: int, chosen: Int32 | None
    ) -> Any:
        """Return the best tokens for each mask; `scores` [masks, vocabulary]."""
        several = len(scores) > 1
        encoder = self._encoder if self._tokenizer.exist() else None
        found = []
        for place, row in zip(np.flatnonzero(ids == mask), scores, strict=True):
            best = np.argsort(-(row if chosen is None else row[chosen]), kind="stable")[:top_k]
            candidates = []
            for token in (best if chosen is None else chosen[best]).tolist():
                filled = ids.copy()
                filled[place] = token
                text = sequence = None
                if encoder is not None:
                    text = encoder.backend.decode([token])
                    # With several masks, skipping special tokens would drop the others.
                    sequence = _sequence(encoder, filled, special=several)
                score = float(row[token])
                candidates.append(Candidate(token=token, score=score, text=text, sequence=sequence))
            found.append(candidates)
        return found


def _sequence(encoder: TextEncoder, ids: Int32, *, special: bool) -> str:
    """Return the text of ids without padding, and without special tokens unless `special`."""
    pad = encoder.special_id("pad_token")
    kept = ids if pad is None else ids[ids != pad]
    text: str = encoder.backend.decode(kept.tolist(), skip_special_tokens=not special)
    return text
