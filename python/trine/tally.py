# SPDX-License-Identifier: Apache-2.0
"""What the calls of a thread cost, for whoever has to account for them."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from threading import Event


class CancelledError(Exception):
    """Ends calls that nobody waits for."""


@dataclass
class Tally:
    """Sums over calls.

    Attributes
    ----------
    tokens : int
        Tokens that the model read, special ones included: those of texts, of windows, of prompts.
    written : int
        Tokens that it wrote.
    truncated : int
        Texts of which something was cut away.
    seconds : float
        Time in the core, waiting for its turn there included.
    gone : threading.Event or None
        Set by whoever wants nothing of it any more: `CancelledError` is raised before the next run.
    """

    tokens: int = 0
    written: int = 0
    truncated: int = 0
    seconds: float = 0.0
    gone: Event | None = None

    def check(self) -> None:
        """Raise CancelledError if nobody waits any more."""
        if self.gone is not None and self.gone.is_set():
            raise CancelledError("nobody waits for it")


_CURRENT: ContextVar[Tally | None] = ContextVar("trine.tally", default=None)


@contextmanager
def tallied(gone: Event | None = None) -> Iterator[Tally]:
    """Count what models do in this block, on this thread; `gone` ends them.

    Examples
    --------
    >>> import trine
    >>> from trine.tally import tallied
    >>> with trine.load("tests/golden/examples/classify") as model, tallied() as tally:
    ...     labels = model.predict(["A great film.", "Not funny!"])
    >>> tally.tokens, tally.truncated
    (11, 0)
    """
    tally = Tally(gone=gone)
    token = _CURRENT.set(tally)
    try:
        yield tally
    finally:
        _CURRENT.reset(token)


def current() -> Tally | None:
    """Return what is counted into, or None."""
    return _CURRENT.get()
