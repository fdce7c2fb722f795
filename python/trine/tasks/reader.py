# SPDX-License-Identifier: Apache-2.0
"""Questions to answers found in a context: extractive question answering."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, TypedDict

import numpy as np
from numpy.typing import NDArray

from trine._core import InputError
from trine.arguments import check_count, check_int
from trine.progress import Progress
from trine.tasks.base import Task
from trine.tasks.inputs import as_list, windows
from trine.tokenization import with_marks
from trine.tokenizer_files import least

if TYPE_CHECKING:
    from tokenizers import Encoding

    Span = tuple[Encoding, "Float32", "Float32"]  # a window, its start and end logits

Float32 = NDArray[np.float32]

# What transformers reads at once unless told otherwise.
_WINDOW_TOKENS = 384


class Answer(TypedDict):
    """A stretch of the context, ``context[start:end]``; an empty text means "no answer"."""

    text: str
    score: float
    start: int
    end: int


class _Options(TypedDict):
    top_k: int
    max_answer_len: int
    handle_impossible: bool
    align_to_words: bool


class Reader(Task):
    """Answers questions from a context.

    Examples
    --------
    >>> import trine
    >>> with trine.load("tests/golden/examples/ask") as model:
    ...     answer = model.predict(("Who plays the harp?", "Ada Lovelace plays the harp."))
    >>> answer["text"], answer["start"], answer["end"]
    ('Ada Lovelace', 0, 12)
    """

    needs: ClassVar = ("start_logits", "end_logits")
    _squeezed: ClassVar = frozenset({"start_logits", "end_logits"})

    def predict(
        self,
        inputs: Any,
        *,
        batch_size: int | None = None,
        show_progress: bool | None = None,
        top_k: int | None = None,
        handle_impossible: bool = False,
        max_answer_len: int = 15,
        max_seq_len: int | None = None,
        doc_stride: int | None = None,
        align_to_words: bool = True,
    ) -> Any:
        """Answer questions.

        Parameters
        ----------
        inputs : list of (str, str) or {"question": str, "context": str}
            A single one gives a single result. A context that is too long is read in overlapping
            windows.
        batch_size : int or None
            Most windows of one run; results don't depend on it.
        show_progress : bool or None
            Draw a bar on standard error.
        top_k : int or None
            Return a list of the best answers, at most this many; None: the best one by itself.
        handle_impossible : bool
            Offer "no answer", an empty text, as one of them.
        max_answer_len : int
            Most tokens of an answer.
        max_seq_len : int or None
            Most tokens of a window; by default 384, or what the model takes if that is less.
        doc_stride : int or None
            Tokens that two windows share; by default 128, or half a window if that is less.
        align_to_words : bool
            Widen answers to whole words.

        Returns
        -------
        list of {"text": str, "score": float, "start": int, "end": int}
            For each question its answer; `start` and `end` count characters of the context. With
            `top_k` for each question a list of answers, best first.

        Raises
        ------
        InputError
            Not a pair of texts, an empty one, or a question that fills the window; a number that
            is out of range.

        Notes
        -----
        Scores and windows are those of transformers' question-answering pipeline: the scores of
        one answer that stands in several places, or in several windows, are added up, so that the
        sum of many may exceed one.
        """
        count = check_count("top_k", top_k) or 1
        max_answer_len = check_int("max_answer_len", max_answer_len)
        max_seq_len = check_count("max_seq_len", max_seq_len)
        items, single = as_list(inputs, single=(tuple, dict))
        pairs = [_pair(item, index) for index, item in enumerate(items)]
        window = least(max_seq_len or _WINDOW_TOKENS, self.max_seq_length) or _WINDOW_TOKENS
        stride = min(window // 2, 128)
        if doc_stride is not None:
            stride = check_int("doc_stride", doc_stride, 0)
        options = _Options(
            top_k=count,
            max_answer_len=max_answer_len,
            handle_impossible=handle_impossible,
            align_to_words=align_to_words,
        )
        progress = Progress(len(pairs), shown=show_progress)
        results: list[list[Answer] | Answer] = []
        for first, part in windows(pairs):
            encodings = [
                self._encoder.windows(pair, stride=stride, limit=window, what=f"input {index}")
                for index, pair in enumerate(part, first)
            ]
            flat = [encoding for group in encodings for encoding in group]
            progress.expect(len(flat) - len(part))
            tokens = self._encoder.join(flat)
            logits = iter(self._per_token(tokens, self.needs, batch_size, progress))
            for (_, context), group in zip(part, encodings, strict=True):
                spans: list[Span] = []
                for encoding in group:
                    start, end = next(logits)
                    spans.append((encoding, start[:, 0], end[:, 0]))
                answers = self._answers(context, spans, options)
                results.append(answers if top_k is not None else answers[0])
        return results[0] if single else results

    def _answers(self, context: str, spans: list[Span], options: _Options) -> list[Answer]:
        """Gather the candidates of all windows of one context."""
        top_k, aligned = options["top_k"], options["align_to_words"]
        wanted = top_k * 2 + 10 if aligned else top_k  # several may become the same words
        null_score = float("inf")
        answers: dict[str, Answer] = {}
        for encoding, start_logits, end_logits in spans:
            allowed = self._allowed(encoding)
            start = _probabilities(start_logits, allowed)
            end = _probabilities(end_logits, allowed)
            null_score = min(null_score, float(start[0] * end[0]))
            start[0] = end[0] = 0  # the first token stands for "no answer"
            for s, e, score in _best(start, end, wanted, options["max_answer_len"], allowed):
                first, last = _characters(encoding, s, e, aligned=aligned)
                last = with_marks(context, last, len(context))
                text = context[first:last]
                if (same := answers.get(text.lower())) is not None:
                    same["score"] += score
                else:
                    answers[text.lower()] = Answer(text=text, score=score, start=first, end=last)
        found = list(answers.values())
        if options["handle_impossible"] or not found:
            found.append(Answer(text="", score=null_score, start=0, end=0))
        return sorted(found, key=lambda answer: -answer["score"])[:top_k]

    def _allowed(self, encoding: Encoding) -> NDArray[np.bool_]:
        """Return which tokens an answer may have: the context's, and the first special one."""
        cls = self._encoder.special_id("cls_token")
        pairs = zip(encoding.sequence_ids, encoding.ids, strict=True)
        return np.array([part == 1 or token == cls for part, token in pairs])


def _pair(item: object, index: int) -> tuple[str, str]:
    if isinstance(item, dict):
        item = (item.get("question"), item.get("context"))
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        raise InputError(f"input {index}: expected (question, context)")
    question, context = item
    if not isinstance(question, str) or not isinstance(context, str):
        raise InputError(f"input {index}: question and context must be texts")
    if not question or not context:
        raise InputError(f"input {index}: question and context must not be empty")
    return question, context


def _probabilities(logits: Float32, allowed: NDArray[np.bool_]) -> Float32:
    masked = np.where(allowed, logits, np.float32(-10000.0))
    exp = np.exp(masked - masked.max())
    probabilities: Float32 = exp / exp.sum()
    return probabilities


def _best(
    start: Float32, end: Float32, count: int, longest: int, allowed: NDArray[np.bool_]
) -> list[tuple[int, int, float]]:
    """Return the `count` likeliest spans of at most `longest` tokens, best first."""
    longest = min(longest, len(end))
    scores = np.tril(np.triu(np.outer(start, end)), longest - 1).ravel()
    if count < len(scores):
        best = np.argpartition(-scores, count)[:count]
        best = best[np.argsort(-scores[best], kind="stable")]
    else:
        best = np.argsort(-scores, kind="stable")
    spans = [(*divmod(int(i), len(end)), float(scores[i])) for i in best if scores[i] > 0]
    return [(s, e, score) for s, e, score in spans if allowed[s] and allowed[e]]


def _characters(encoding: Encoding, first: int, last: int, *, aligned: bool) -> tuple[int, int]:
    """Return where a span of tokens stands in the context."""
    start, end = encoding.offsets[first][0], encoding.offsets[last][1]
    if aligned:
        words = (encoding.token_to_word(first), encoding.token_to_word(last))
        spans = [encoding.word_to_chars(word, 1) for word in words if word is not None]
        whole = [span for span in spans if span is not None]
        if len(whole) == 2:
            return whole[0][0], whole[1][1]
    return start, end
