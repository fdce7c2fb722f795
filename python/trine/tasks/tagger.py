# SPDX-License-Identifier: Apache-2.0
"""Texts to entities: token classification."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypedDict, get_args

import numpy as np
from numpy.typing import NDArray

from trine._core import InputError
from trine.arguments import check_int, check_known, check_texts
from trine.numerics import softmax
from trine.progress import Progress
from trine.tasks.base import Task
from trine.tasks.inputs import as_list, windows
from trine.tasks.labels import label_names
from trine.tokenization import with_marks

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tokenizers import Encoding

Aggregation = Literal["none", "simple", "first", "average", "max"]
Float32 = NDArray[np.float32]


class Entity(TypedDict):
    """A labelled stretch of a text: ``text[start:end]``."""

    label: str
    score: float
    start: int
    end: int
    text: str


@dataclass(frozen=True)
class _Piece:
    """A token, or a word made of several: where it stands and what it may be."""

    scores: Float32  # one for each label
    start: int
    end: int
    continues: bool = False  # the word that the piece before it began


class Tagger(Task):
    """Finds entities in texts.

    Examples
    --------
    >>> import trine
    >>> with trine.load("tests/golden/examples/tag") as model:
    ...     entities = model.predict("Ada Lovelace met Alan Turing in Oslo.")
    >>> [(x["label"], x["text"]) for x in entities]
    [('PER', 'Ada Lovelace'), ('PER', 'Alan Turing'), ('LOC', 'Oslo')]
    """

    needs: ClassVar = ("logits",)
    _outside: ClassVar = "O"  # the label of what is no entity

    @property
    def labels(self) -> list[str]:
        """Names of the labels, in the order of the logits."""
        return label_names(self._checkpoint, self._core.outputs["logits"][1])

    def predict(
        self,
        inputs: Any,
        *,
        batch_size: int | None = None,
        show_progress: bool | None = None,
        aggregation: Aggregation = "simple",
        ignore_labels: str | Iterable[str] | None = None,
        stride: int = 64,
    ) -> Any:
        """Find the entities of texts.

        Parameters
        ----------
        inputs : list of str
            A single text gives a single result. A text longer than the model takes is read in
            overlapping windows.
        batch_size : int or None
            Most windows of one run; results don't depend on it.
        show_progress : bool or None
            Draw a bar on standard error.
        aggregation : {"simple", "none", "first", "average", "max"}
            none: one result per token, with its full label. simple: tokens in a row with one label
            become one entity, a ``B-`` begins another. first, average, max: so too, but the tokens
            of a word first agree: on the first one's label, on the one with the best mean score,
            on that of the surest token.
        ignore_labels : str, iterable of str or None
            Labels to leave out; by default ``O``, and for a `Detector` ``original``.
        stride : int
            Tokens that two windows share.

        Returns
        -------
        list of list of {"label": str, "score": float, "start": int, "end": int, "text": str}
            For each text its entities in order; `start` and `end` count characters.

        Raises
        ------
        InputError
            Not a text, an unknown aggregation, or a stride below zero.

        Notes
        -----
        Grouping and scores are those of transformers' token-classification pipeline, and so are
        `start` and `end`, but for combining marks: those at the end of an entity belong to it.
        """
        check_known("aggregation", aggregation, get_args(Aggregation))
        stride = check_int("stride", stride, 0)
        ignored = [self._outside] if ignore_labels is None else _names(ignore_labels)
        items, single = as_list(inputs)
        progress = Progress(len(items), shown=show_progress)
        results: list[list[Entity]] = []
        for start, part in windows(items):
            encodings = [self._cut(text, start + i, stride) for i, text in enumerate(part)]
            flat = [encoding for group in encodings for encoding in group]
            progress.expect(len(flat) - len(part))
            tokens = self._encoder.join(flat)
            logits = iter(self._per_token(tokens, self.needs, batch_size, progress))
            for text, group in zip(part, encodings, strict=True):
                entities: list[Entity] = []
                for encoding in group:
                    pieces = list(self._pieces(encoding, self._scores(next(logits)[0]), text))
                    found = self._group(pieces, aggregation, text)
                    entities += [e for e in found if e["label"] not in ignored]
                results.append(_merge_windows(entities) if len(group) > 1 else entities)
        return results[0] if single else results

    def _scores(self, logits: Float32) -> Float32:
        """Return a score for each token and label."""
        return softmax(logits)

    def _cut(self, text: object, index: int, stride: int) -> list[Encoding]:
        if not isinstance(text, str):
            raise InputError(f"input {index}: expected a text, got {type(text).__name__}")
        return self._encoder.windows(
            text, stride=stride, limit=self.max_seq_length, what=f"input {index}"
        )

    def _pieces(self, encoding: Encoding, scores: Float32, text: str) -> Iterator[_Piece]:
        """Yield a window's tokens without the special ones."""
        encoder = self._encoder
        unknown = encoder.special_id("unk_token")
        marks_words = bool(getattr(encoder.backend.model, "continuing_subword_prefix", None))
        words = [i for i, special in enumerate(encoding.special_tokens_mask) if not special]
        ids, tokens, offsets = encoding.ids, encoding.tokens, encoding.offsets
        for i, following in zip_longest(words, words[1:]):
            token_id, token, row = ids[i], tokens[i], scores[i]
            start, end = offsets[i]
            if marks_words:  # "##ing" is longer than the "ing" it stands for
                continues = len(token) != end - start
            else:
                continues = start > 0 and " " not in text[start - 1 : start + 1]
            end = with_marks(text, end, len(text) if following is None else offsets[following][0])
            yield _Piece(row, start, end, continues and token_id != unknown)

    def _group(self, pieces: list[_Piece], aggregation: Aggregation, text: str) -> list[Entity]:
        if aggregation in ("first", "average", "max"):
            pieces = [_word(group, aggregation) for group in _words(pieces)]
        names = self.labels
        entities: list[Entity] = []
        scores: list[np.float32] = []  # of the pieces of the last entity
        last = ""  # and its tag
        for piece in pieces:
            best = int(piece.scores.argmax())
            name, score = names[best], piece.scores[best]
            if aggregation == "none":
                entities.append(_entity(name, score, piece.start, piece.end, text))
                continue
            begins, tag = _tag(name)
            if not begins and entities and tag == last:
                scores.append(score)
                grown = entities.pop()
                label, start = grown["label"], grown["start"]
            else:
                scores, label, start = [score], name.split("-", 1)[-1], piece.start
            entities.append(_entity(label, np.mean(scores), start, piece.end, text))
            last = tag
        return entities


def _names(labels: str | Iterable[str]) -> list[str]:
    return [labels] if isinstance(labels, str) else check_texts("ignore_labels", labels)


def _entity(label: str, score: Any, start: int, end: int, text: str) -> Entity:
    return Entity(label=label, score=float(score), start=start, end=end, text=text[start:end])


def _tag(label: str) -> tuple[bool, str]:
    """Return whether a label begins an entity, and its name without ``B-`` or ``I-``."""
    if label.startswith(("B-", "I-")):
        return label[0] == "B", label[2:]
    return False, label


def _words(pieces: list[_Piece]) -> Iterator[list[_Piece]]:
    group: list[_Piece] = []
    for piece in pieces:
        if group and not piece.continues:
            yield group
            group = []
        group.append(piece)
    if group:
        yield group


def _word(group: list[_Piece], aggregation: Aggregation) -> _Piece:
    """Make one piece of a word's tokens."""
    if aggregation == "first":
        scores = group[0].scores
    elif aggregation == "max":
        scores = max(group, key=lambda piece: float(piece.scores.max())).scores
    else:
        scores = np.mean([piece.scores for piece in group], axis=0)
    return _Piece(scores, group[0].start, group[-1].end)


def _merge_windows(entities: list[Entity]) -> list[Entity]:
    """Keep the longer, then the surer, of entities that overlap."""
    merged: list[Entity] = []
    for entity in sorted(entities, key=lambda e: e["start"]):
        if not merged or not merged[-1]["start"] <= entity["start"] < merged[-1]["end"]:
            merged.append(entity)
            continue
        last = merged[-1]
        length, before = entity["end"] - entity["start"], last["end"] - last["start"]
        if length > before or (length == before and entity["score"] > last["score"]):
            merged[-1] = entity
    return merged
