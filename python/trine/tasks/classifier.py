# SPDX-License-Identifier: Apache-2.0
"""Texts and pairs to labels; zero-shot labels; ranking by a cross-encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypedDict, get_args

import numpy as np
from numpy.typing import NDArray

from trine._core import InputError, ModelError
from trine.arguments import check_count, check_known, check_text, check_texts
from trine.numerics import sigmoid, softmax
from trine.progress import Progress
from trine.tasks.base import Task
from trine.tasks.inputs import as_list, windows
from trine.tasks.labels import label_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from trine.tokenization import Side, Strategy

Function = Literal["sigmoid", "softmax", "none"]
Float32 = NDArray[np.float32]


class Label(TypedDict):
    """One label of a text."""

    label: str
    score: float


class Classifier(Task):
    """Gives labels to texts, or to pairs of texts.

    Examples
    --------
    >>> import trine
    >>> with trine.load("tests/golden/examples/classify") as model:
    ...     labels = model.predict("A great film.")
    >>> labels[0]["label"], round(labels[0]["score"], 2)
    ('positive', 1.0)
    """

    needs: ClassVar = ("logits",)

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
        top_k: int | None = None,
        function_to_apply: Function | None = None,
        truncate: bool = True,
        truncation_side: Side | None = None,
    ) -> Any:
        """Classify texts.

        Parameters
        ----------
        inputs : list of str, (str, str), {"text": str, "text_pair": str} or token ids
            A single one of these gives a single result.
        batch_size : int or None
            Most texts of one run; results don't depend on it.
        show_progress : bool or None
            Draw a bar on standard error.
        top_k : int or None
            How many labels to return; by default all.
        function_to_apply : {"sigmoid", "softmax", "none"} or None
            What makes scores of logits. By default what config.json's ``problem_type`` asks for:
            softmax, for several independent labels or a single one sigmoid, for regression none.
        truncate : bool
            False to refuse texts that are too long instead of cutting them.
        truncation_side : {"right", "left"} or None
            Which end of a long text is cut; by default what the tokenizer's files say.

        Returns
        -------
        list of list of {"label": str, "score": float}
            For each input its labels, best first.

        Raises
        ------
        InputError
            Not a text, a pair or token ids; an id out of range; an unknown function; a `top_k`
            below one; with `truncate` false a text that is too long.

        Notes
        -----
        Scores are those of transformers' text-classification pipeline.
        """
        top_k = check_count("top_k", top_k)
        items, single = as_list(inputs, single=(str, tuple, dict))
        # An empty second text is none: so has it transformers' pipeline.
        items = [x[0] if isinstance(x, tuple) and x[1:] == ("",) else x for x in items]
        logits = self._logits(
            items,
            batch_size=batch_size,
            show_progress=show_progress,
            truncate=truncate,
            side=truncation_side,
        )
        scores = self._apply(logits, function_to_apply)
        names = self.labels
        results = [_ranked(names, row)[:top_k] for row in scores.tolist()]
        return results[0] if single else results

    def zero_shot(
        self,
        texts: str | Sequence[str],
        labels: str | Iterable[str],
        *,
        hypothesis_template: str = "This example is {}.",
        multi_label: bool = False,
        top_k: int | None = None,
        truncate: bool = True,
        batch_size: int | None = None,
        show_progress: bool | None = None,
    ) -> Any:
        """Score labels that the model never saw, by natural language inference.

        Parameters
        ----------
        texts : str or sequence of str
        labels : iterable of str, or str with commas
        hypothesis_template : str
            ``{}`` stands for the label.
        multi_label : bool
            True: each label is judged by itself, entailment against contradiction. False: scores
            of a text add up to one.
        top_k : int or None
            How many labels to return; by default all.
        truncate : bool
            False to refuse texts that are too long instead of cutting them.
        batch_size, show_progress
            As for `predict`.

        Returns
        -------
        list of list of {"label": str, "score": float}
            For each text the labels, best first, as from `predict`.

        Raises
        ------
        InputError
            Not a text, no label, a template without ``{}``, or a `top_k` below one.
        ModelError
            The model has no label that begins with "entail".

        Notes
        -----
        Follows transformers' zero-shot-classification pipeline.
        """
        if isinstance(labels, str):
            labels = [label.strip() for label in labels.split(",") if label.strip()]
        labels = check_texts("labels", labels)
        if not labels:
            raise InputError("labels: at least one is needed")
        top_k = check_count("top_k", top_k)
        hypotheses = _hypotheses(hypothesis_template, labels)
        entailment, contradiction = self._entailment()
        items, single = as_list(texts)
        if not items:
            return []
        for index, text in enumerate(items):
            check_text(f"input {index}", text)
        pairs = [(text, hypothesis) for text in items for hypothesis in hypotheses]
        logits = self._logits(
            pairs,
            batch_size=batch_size,
            show_progress=show_progress,
            strategy="only_first",
            truncate=truncate,
        ).reshape(len(items), len(labels), -1)
        if multi_label or len(labels) == 1:
            scores = softmax(logits[..., [contradiction, entailment]])[..., 1]
        else:
            scores = softmax(logits[..., entailment])
        results = [_ranked(labels, row)[:top_k] for row in scores.tolist()]
        return results[0] if single else results

    def rank(
        self,
        query: str,
        documents: Iterable[str],
        *,
        top_k: int | None = None,
        return_documents: bool = False,
        function_to_apply: Function | None = None,
        truncate: bool = True,
        truncation_side: Side | None = None,
        batch_size: int | None = None,
        show_progress: bool | None = None,
    ) -> list[dict[str, Any]]:
        """Order documents by how well they answer a query (cross-encoders, rerankers).

        Parameters
        ----------
        query : str
        documents : iterable of str
        top_k : int or None
            How many to return; by default all.
        return_documents : bool
            Add the document's text to each result.
        function_to_apply : {"sigmoid", "softmax", "none"} or None
            What makes a score of the logit; by default what config.json asks for.
        truncate, truncation_side
            As for `predict`.
        batch_size, show_progress
            As for `predict`.

        Returns
        -------
        list of {"corpus_id": int, "score": float, "text": str}
            Best first; ``corpus_id`` is the index in `documents`, ``text`` is there if asked for.

        Raises
        ------
        InputError
            The model has several labels; not a text, or a `top_k` below one.

        Notes
        -----
        As `CrossEncoder.rank` of sentence-transformers: a sigmoid is applied unless config.json
        asks for the identity.
        """
        if len(self.labels) != 1:
            raise InputError(f"rank needs a model with one label, this one has {len(self.labels)}")
        check_text("query", query)
        documents = check_texts("documents", documents)
        top_k = check_count("top_k", top_k)
        pairs = [(query, document) for document in documents]
        logits = self._logits(
            pairs,
            batch_size=batch_size,
            show_progress=show_progress,
            truncate=truncate,
            side=truncation_side,
        )
        function = function_to_apply or self._cross_encoder_function()
        scores = self._apply(logits, function)[:, 0]
        results: list[dict[str, Any]] = []
        for index in np.argsort(-scores, kind="stable")[:top_k].tolist():
            results.append({"corpus_id": index, "score": float(scores[index])})
            if return_documents:
                results[-1]["text"] = documents[index]
        return results

    def _logits(
        self,
        items: Sequence[Any],
        *,
        batch_size: int | None,
        show_progress: bool | None,
        strategy: Strategy = "longest_first",
        truncate: bool = True,
        side: Side | None = None,
    ) -> Float32:
        progress = Progress(len(items), shown=show_progress)
        parts = [
            self._matrix(
                self._ragged(part, start, truncate=truncate, strategy=strategy, side=side),
                "logits",
                batch_size,
                progress,
            )
            for start, part in windows(items)
        ]
        empty = np.zeros((0, self._core.outputs["logits"][1]), np.float32)
        return np.concatenate([empty, *parts])

    def _apply(self, logits: Float32, function: Function | None) -> Float32:
        function = self._default_function(logits.shape[1]) if function is None else function
        check_known("function_to_apply", function, get_args(Function))
        if function == "none":
            return logits
        return sigmoid(logits) if function == "sigmoid" else softmax(logits)

    def _default_function(self, labels: int) -> Function:
        problem = self.config.get("problem_type")
        if problem == "regression":
            return "none"
        if problem == "multi_label_classification" or labels == 1:
            return "sigmoid"
        return "softmax"

    def _cross_encoder_function(self) -> Function:
        """Return what sentence-transformers' CrossEncoder applies to the one logit."""
        nested = self.config.get("sentence_transformers")
        name = nested.get("activation_fn") if isinstance(nested, dict) else None
        name = name or self.config.get("sbert_ce_default_activation_function")
        if name is None or name == "torch.nn.modules.activation.Sigmoid":
            return "sigmoid"
        if name == "torch.nn.modules.linear.Identity":
            return "none"
        path = self._checkpoint.folder / "config.json"
        raise ModelError(f"{path}: the activation function {name!r} is not known")

    def _entailment(self) -> tuple[int, int]:
        """Return the indices of the labels for entailment and for its opposite."""
        names = [name.lower() for name in self.labels]
        entailment = next((i for i, n in enumerate(names) if n.startswith("entail")), None)
        if entailment is None:
            path = self._checkpoint.folder / "config.json"
            raise ModelError(
                f"{path}: id2label has no label that begins with 'entail' (it has {self.labels}); "
                "zero_shot needs a model for natural language inference"
            )
        contradiction = next((i for i, n in enumerate(names) if n.startswith("contra")), None)
        if contradiction is None:  # as transformers has it; right for [entailment, not_entailment]
            contradiction = len(names) - 1 if entailment == 0 else 0
        return entailment, contradiction


def _hypotheses(template: str, labels: Sequence[str]) -> list[str]:
    check_text("hypothesis_template", template)
    try:
        found = [template.format(label) for label in labels]
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError(
            f"hypothesis_template {template!r}: {{}} stands for the label, "
            f"and other braces are doubled ({error})"
        ) from error
    if found[0] == template:
        raise InputError(f"hypothesis_template {template!r} has no {{}}")
    return found


def _ranked(names: Sequence[str], scores: list[float]) -> list[Label]:
    pairs = sorted(zip(names, scores, strict=True), key=lambda pair: -pair[1])
    return [Label(label=name, score=score) for name, score in pairs]
