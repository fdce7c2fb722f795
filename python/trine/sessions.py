# SPDX-License-Identifier: Apache-2.0
"""Prompts under way in a session of the core."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trine import tally
from trine._core import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from trine import _core
    from trine.batching import Int32
    from trine.generation import Options

# Memory for the keys and values of prompts that are under way at once; one prompt always is.
_CACHE_BYTES = 1 << 30

# Fewer tokens than this that all prompts begin with aren't worth a run of their own.
_LEAST_SHARED = 8


@dataclass(frozen=True)
class Job:
    """A prompt to go on from; `index` is its place in the caller's list."""

    index: int
    ids: Int32
    room: int  # tokens that may follow
    seed: int

    @property
    def size(self) -> int:
        """Tokens when it is full."""
        return len(self.ids) + self.room


class Rows:
    """Prompts under way in a session of the core."""

    def __init__(self, session: _core.Session, options: Options, ends: frozenset[int]) -> None:
        self._session = session
        self._sampling: dict[str, Any] = {
            "temperature": options.temperature,
            "top_k": options.top_k,
            "top_p": options.top_p,
            "min_p": options.min_p,
            "repetition_penalty": options.repetition_penalty,
            "min_new_tokens": options.min_new_tokens,
            "logprobs": -1 if options.logprobs is None else options.logprobs,
            "end_tokens": sorted(ends),
        }
        self._shared: int | None = None  # the sequence that holds what all prompts begin with
        self.jobs: dict[int, Job] = {}  # by the session's number

    def share(self, jobs: Sequence[Job]) -> None:
        """Compute once what all prompts begin with."""
        if len(jobs) < 2:
            return
        prefix = _common_prefix([job.ids for job in jobs])
        if len(prefix) < _LEAST_SHARED:
            return
        self._shared = self._session.add(prefix, max_new_tokens=1)
        while not self._session.step():
            pass

    def fit(self, job: Job) -> bool:
        """Whether there is memory for another prompt; for one alone there always is."""
        info = self._session.info()
        if not self.jobs:
            return True
        planned = sum(j.size for j in self.jobs.values())
        return info["cache_bytes"] * (planned + job.size) <= _CACHE_BYTES * planned

    def add(self, job: Job) -> None:
        """Begin with a prompt."""
        number = self._session.add(
            job.ids,
            max_new_tokens=job.room,
            seed=job.seed,
            prefix=self._shared,
            **self._sampling,
        )
        self.jobs[number] = job

    def remove(self, number: int) -> None:
        """Give back the memory of one that is over."""
        self._session.remove(number)
        del self.jobs[number]

    def step(self) -> Iterator[tuple[int, _core.GeneratedToken]]:
        """Run once; yields the caller's index and the token of each prompt that got one."""
        counted, begun = tally.current(), time.perf_counter()
        tokens = self._session.step()
        if counted is not None:
            counted.seconds += time.perf_counter() - begun
            counted.written += len(tokens)
        for token in tokens:
            index = self.jobs[token["sequence"]].index
            if token["finish"] == "nan":
                why = self._session.why_not_finite()
                raise ModelError(f"input {index}: the logits are no numbers: {why}")
            yield index, token


def _common_prefix(prompts: Sequence[Int32]) -> Int32:
    """Return what all prompts begin with."""
    first = min(prompts, key=len)
    size = len(first)
    for ids in prompts:
        differ = np.flatnonzero(ids[:size] != first[:size])
        size = int(differ[0]) if len(differ) else size
    return np.ascontiguousarray(first[:size])
