# SPDX-License-Identifier: Apache-2.0
"""Measure a model beside what the machine could do at most.

The limit of a case is the sum over its steps of the longer of two times: its arithmetic at the
measured peak of this many threads in its dtype, and its weights read once at the measured
bandwidth. It is measured on the CPU alone: of other devices only times are given, unless the caller
says what theirs is.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from trine import _core
from trine._core import InputError
from trine.batching import Tokens, offsets_of, plan

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from trine.tasks.base import Task

_WARM_UP = 3
_SECONDS = 30.0  # no case takes longer, however slow the model
_MIXED = 64  # sequences of the mixed batch


class Measured(TypedDict, total=False):
    """One line of a benchmark."""

    case: str
    median_ms: float
    p95_ms: float
    runs: int
    gflops: float
    limit_share: float
    peak_gflops: float
    read_gb_per_s: float
    sequences_per_s: float
    tokens_per_s: float
    profile: list[dict[str, Any]]
    machine: dict[str, Any]


def parse_cases(text: str) -> list[tuple[int, int]]:
    """Turn ``"1x16,8x128"`` into ``[(1, 16), (8, 128)]``."""
    cases = []
    for case in text.split(","):
        batch, _, length = case.partition("x")
        if not (batch.isdecimal() and length.isdecimal() and int(batch) and int(length)):
            raise InputError(f"case {case!r}: expected batch x tokens, such as 1x128")
        cases.append((int(batch), int(length)))
    return cases


def bench(
    model: Task,
    cases: Sequence[tuple[int, int]],
    *,
    rounds: int = 20,
    profile: bool = False,
    limit: tuple[float, float] | None = None,
) -> Iterator[Measured]:
    """Measure each case, then a batch of mixed lengths.

    Parameters
    ----------
    model : a loaded model
    cases : sequence of (batch, tokens)
        Shortened to what the model takes.
    rounds : int
        Timed runs of each; fewer if they take longer than half a minute.
    profile : bool
        Add each step's time.
    limit : (float, float) or None
        GFLOP/s and GB/s that the device has by its data sheet. A processor's are measured; of a
        GPU there is no share of the limit without them.

    Yields
    ------
    Measured
        The first describes the machine, the others one case each.
    """
    if rounds < 1:
        raise InputError(f"rounds is {rounds}, expected at least 1")
    if limit is not None and not min(limit) > 0:
        raise InputError(f"limit is {limit}, expected two numbers above 0")
    machine = _Machine(model, limit)
    yield Measured(machine=machine.described)
    most_tokens = model.max_seq_length
    rng = np.random.default_rng(0)
    for batch, wanted in cases:
        length = wanted if most_tokens is None else min(wanted, most_tokens)
        tokens = _tokens(rng, model, [length] * batch)
        yield _measure(machine, f"{batch}x{length}", tokens, rounds, profile=profile)
    most = 256 if most_tokens is None else min(256, most_tokens)
    lengths = np.clip(rng.lognormal(3.4, 0.7, _MIXED).astype(int), min(5, most), most)
    tokens = _tokens(rng, model, lengths.tolist())
    yield _measure(machine, f"{_MIXED} mixed", tokens, max(1, rounds // 5), profile=profile)


class _Machine:
    """The model's core, and what its machine can do."""

    def __init__(self, model: Task, limit: tuple[float, float] | None) -> None:
        self.model = model
        info = model.info()
        threads = int(info["threads"])
        self.threads = threads
        self.dtype = str(info["dtype"])
        # Steps of a quantised model may be of several dtypes: some of its weights are kept.
        one = self.profile(_uniform(np.zeros(1, np.int32)))
        self.dtypes = {"float32", self.dtype, *(str(step["dtype"]) for step in one)}
        self.peaks: dict[str, float] = {}  # by dtype
        self.bandwidth = 0.0
        # What a GPU can do is not measured here, and what the CPU can says nothing of it.
        self.measured = info["device"] == "cpu" and limit is None
        if limit is not None:
            self.peaks = dict.fromkeys(self.dtypes, limit[0])
            self.bandwidth = limit[1]
        self.has_limit = self.measured or limit is not None
        self.described = {key: info[key] for key in ("source", "device", "isa", "dtype", "threads")}

    def probe(self, *, again: bool = False) -> None:
        """Measure the machine; `again` keeps the better of this and the last time.

        Its speed changes with what else runs on it, so it is measured around each case.
        """
        if not self.measured:
            return
        peaks = {name: _core.peak_gflops(self.threads, name) for name in self.dtypes}
        bandwidth = _core.read_bandwidth(self.threads)
        self.peaks = {n: max(x, self.peaks[n]) if again else x for n, x in peaks.items()}
        self.bandwidth = max(bandwidth, self.bandwidth) if again else bandwidth

    def flops(self, parts: Sequence[Tokens]) -> float:
        """Return the floating-point operations of these runs."""
        return sum(step["flops"] for tokens in parts for step in self.profile(tokens))

    def limit(self, parts: Sequence[Tokens]) -> float:
        """Return the least seconds that these runs can take."""
        seconds = 0.0
        fixed = self._weight_bytes()
        for tokens in parts:
            for step, weights in zip(self.profile(tokens), fixed, strict=True):
                work = step["flops"] / (self.peaks[step["dtype"]] * 1e9)
                seconds += max(work, weights / (self.bandwidth * 1e9))
        return seconds

    def profile(self, tokens: Tokens) -> list[_core.ProfileStep]:
        """Run once, with the time of each step."""
        return self.model._core.profile(tokens.ids, tokens.offsets, self.model.needs)  # noqa: SLF001

    def _weight_bytes(self) -> list[float]:
        """Return each step's bytes that don't grow with the tokens."""
        one, two = (
            [step["bytes"] for step in self.profile(_uniform(np.zeros(n, np.int32)))]
            for n in (1, 2)
        )
        return [2 * a - b for a, b in zip(one, two, strict=True)]


def _measure(
    machine: _Machine, case: str, tokens: Tokens, rounds: int, *, profile: bool
) -> Measured:
    model = machine.model
    budget = model._token_budget  # noqa: SLF001
    parts = [tokens.select(rows) for rows in plan(tokens.lengths, budget=budget)]

    def run() -> float:
        start = time.perf_counter()
        for part in parts:
            model._core.run(part.ids, part.offsets, outputs=model.needs)  # noqa: SLF001
        return time.perf_counter() - start

    machine.probe()
    started = time.perf_counter()
    for _ in range(_WARM_UP):
        run()
    times = [run()]
    while len(times) < rounds and time.perf_counter() - started < _SECONDS:
        times.append(run())
    machine.probe(again=True)
    median, p95 = np.percentile(times, [50, 95]).tolist()
    result = Measured(
        case=case,
        median_ms=1e3 * median,
        p95_ms=1e3 * p95,
        runs=len(times),
        gflops=machine.flops(parts) / median / 1e9,
        sequences_per_s=len(tokens) / median,
        tokens_per_s=len(tokens.ids) / median,
    )
    if machine.has_limit:
        result["limit_share"] = machine.limit(parts) / median
        result["peak_gflops"] = machine.peaks[machine.dtype]
        result["read_gb_per_s"] = machine.bandwidth
    if profile:
        result["profile"] = [dict(step) for part in parts for step in machine.profile(part)]
    return result


def _tokens(rng: np.random.Generator, model: Task, lengths: list[int]) -> Tokens:
    """Random ids, but for the few at the front that are often special."""
    vocabulary = int(model.config["vocab_size"])
    ids = rng.integers(min(5, vocabulary - 1), vocabulary, sum(lengths), dtype=np.int32)
    return Tokens(ids, offsets_of(lengths), [0] * len(lengths))


def _uniform(ids: np.ndarray[Any, np.dtype[np.int32]]) -> Tokens:
    return Tokens(ids, offsets_of([len(ids)]), [0])


def show(line: Measured) -> str:
    """Format a line for people."""
    if "machine" in line:
        facts = ", ".join(f"{key} {value}" for key, value in line["machine"].items())
        return f"# {facts}"
    limit = ""
    if "limit_share" in line:
        limit = (
            f"{100 * line['limit_share']:5.1f} % of the limit "
            f"({line['peak_gflops']:.0f} GFLOP/s, {line['read_gb_per_s']:.0f} GB/s)  "
        )
    text = (
        f"{line['case']:>10}  median {line['median_ms']:9.3f} ms  p95 {line['p95_ms']:9.3f} ms  "
        f"{line['gflops']:7.1f} GFLOP/s  {limit}"
        f"{line['sequences_per_s']:8.1f} sequences/s  {line['tokens_per_s']:9.0f} tokens/s"
    )
    for step in line.get("profile", []):
        text += f"\n{step['ms']:12.4f} ms  {step['op']:<14} {step['name']}".rstrip()
    return text
