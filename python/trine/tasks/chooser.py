# SPDX-License-Identifier: Apache-2.0
"""A prompt and several choices to a score for each: multiple choice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from trine._core import InputError
from trine.arguments import check_text, check_texts
from trine.numerics import softmax
from trine.progress import Progress
from trine.tasks.base import Task
from trine.tasks.inputs import as_list, windows

if TYPE_CHECKING:
    from collections.abc import Sequence


class Chooser(Task):
    """Scores choices against each other.

    Examples
    --------
    >>> import trine
    >>> with trine.load("tests/golden/examples/choose") as model:
    ...     scores = model.predict(("It rains, so Grace takes", ["a lamp", "an umbrella"]))
    >>> scores.index(max(scores))
    1
    """

    needs: ClassVar = ("logits",)
    _ndim: ClassVar = 3
    _squeezed: ClassVar = frozenset({"logits"})

    def predict(
        self,
        inputs: Any,
        *,
        batch_size: int | None = None,
        show_progress: bool | None = None,
        truncate: bool = True,
    ) -> Any:
        """Score choices.

        Parameters
        ----------
        inputs : list of (str, list of str)
            A prompt with its choices; a single tuple gives a single result.
        batch_size : int or None
            Most choices of one run; results don't depend on it.
        show_progress : bool or None
            Draw a bar on standard error.
        truncate : bool
            False to refuse texts that are too long instead of cutting them.

        Returns
        -------
        list of list of float
            For each prompt a probability for each choice, in the order of the choices.

        Raises
        ------
        InputError
            Not a prompt with at least one choice; with `truncate` false a text that is too long.
        """
        items, single = as_list(inputs, single=(str, tuple))
        pairs, counts = _pairs(items)
        progress = Progress(len(pairs), shown=show_progress)
        logits = np.zeros(len(pairs), np.float32)
        for start, part in windows(pairs):
            tokens = self._ragged(part, start, truncate=truncate)
            found = self._matrix(tokens, "logits", batch_size, progress)
            logits[start : start + len(part)] = found[:, 0]
        groups = np.split(logits, np.cumsum(counts)[:-1]) if counts else []
        results = [softmax(group).tolist() for group in groups]
        return results[0] if single else results


def _pairs(items: Sequence[Any]) -> tuple[list[tuple[str, str]], list[int]]:
    pairs: list[tuple[str, str]] = []
    counts: list[int] = []
    for index, item in enumerate(items):
        if not isinstance(item, (tuple, list)) or len(item) != 2 or isinstance(item[1], str):
            raise InputError(f"input {index}: expected (prompt, choices)")
        prompt = check_text(f"input {index}: prompt", item[0])
        choices = check_texts(f"input {index}: choices", item[1])
        if not choices:
            raise InputError(f"input {index}: expected at least one choice")
        pairs += [(prompt, choice) for choice in choices]
        counts.append(len(choices))
    return pairs, counts
