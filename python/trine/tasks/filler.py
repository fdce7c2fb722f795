# SPDX-License-Identifier: Apache-2.0
"""Texts with masks to what could stand there: masked language models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, TypedDict

import numpy as np
from numpy.typing import NDArray

from trine._core import InputError, ModelError
from trine.numerics import softmax
from trine.progress import Progress
from trine.tasks.base import Task
from trine.tasks.inputs import as_list, windows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trine.batching import Int32

Float32 = NDArray[np.float32]


class Candidate(TypedDict):
    """A token that could stand in place of a mask."""

    token: int
    score: float
    text: str
    sequence: str


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
        targets: str | Sequence[str] | None = None,
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
        targets : str or sequence of str or None
            Score these tokens only; a text of several tokens counts as its first.

        Returns
        -------
        list of list of list of {"token": int, "score": float, "text": str, "sequence": str}
            For each text, for each of its masks, the candidates, best first: id, probability, the
            token as text, and the whole text with the mask filled.

        Raises
        ------
        InputError
            A text without a mask (or with its mask cut off), or no usable target.

        Notes
        -----
        Probabilities are those of transformers' fill-mask pipeline: each mask by itself.
        """
        if top_k < 1:
            raise InputError(f"top_k is {top_k}, expected at least 1")
        mask = self._mask_id()
        chosen = None if targets is None else self._target_ids(targets)
        items, single = as_list(inputs)
        progress = Progress(len(items), shown=show_progress)
        results: list[Any] = [None] * len(items)
        for start, part in windows(items):
            tokens = self._ragged(part, start)
            for index, row in enumerate(tokens):
                if mask not in row:
                    raise InputError(
                        f"input {start + index} has no {self.mask_token} among its first "
                        f"{len(row)} tokens"
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

    def _mask_id(self) -> int:
        mask = self._encoder.special_id("mask_token")
        if mask is None:
            mask = self._encoder.backend.token_to_id(self.mask_token)
        if mask is None:
            raise ModelError(
                f"{self._checkpoint.folder}: tokenizer_config.json names no mask_token that the "
                "vocabulary has"
            )
        return mask

    def _target_ids(self, targets: str | Sequence[str]) -> Int32:
        backend = self._encoder.backend
        found = []
        for target in [targets] if isinstance(targets, str) else targets:
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
        pad = self._encoder.special_id("pad_token")
        decode = self._encoder.backend.decode
        found = []
        for place, row in zip(np.flatnonzero(ids == mask), scores, strict=True):
            best = np.argsort(-(row if chosen is None else row[chosen]), kind="stable")[:top_k]
            candidates = []
            for token in (best if chosen is None else chosen[best]).tolist():
                filled = ids.copy()
                filled[place] = token
                kept = filled[filled != pad].tolist() if pad is not None else filled.tolist()
                candidates.append(
                    Candidate(
                        token=token,
                        score=float(row[token]),
                        text=decode([token]),
                        # With several masks, skipping special tokens would drop the others.
                        sequence=decode(kept, skip_special_tokens=not several),
                    )
                )
            found.append(candidates)
        return found
