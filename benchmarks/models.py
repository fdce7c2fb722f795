# SPDX-License-Identifier: Apache-2.0
"""Time trine beside its rivals, interleaved in one process.

    python benchmarks/models.py FOLDER [--engines trine,onnxruntime,openvino] [--threads 2]
        [--cases 1x16,32x128,ragged] [--texts FILE] [--clients 8] [--rounds 20] [--json OUT]
        [--cpu-time]

A sentence-transformers folder gives sentence vectors, any other its classifier's logits. A case
is a batch of random ids, or `ragged`: a sequence for each text, about as long, in batches of 32
sorted by length.

Each round runs every engine in turn: an untimed call (caches and thread pools settle), then two
timed ones. Ratios are of medians, time of the first engine over that of the best other; the spread
of the ratio comes from the rounds paired one by one. `--cpu-time` counts the process's time on
processors instead of the clock's: for one thread on a machine that others use, too.
"""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from engines import CORPUS, ENGINES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from engines import Engine

    Batch = tuple[np.ndarray, np.ndarray]

PAUSE = 0.1  # seconds between engines, in which spinning threads stop (ONNX Runtime's: 30 ms)


def quantile(values: list[float], q: float) -> float:
    """The q-quantile, by the nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def interleave(
    calls: dict[str, Callable[[], Any]], rounds: int, burst: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds of `burst` timed calls per engine and round."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            if burst > 1:
                call()
            for _ in range(burst):
                start = clock()
                call()
                times[name].append(clock() - start)
            time.sleep(PAUSE)
    return times


def report(case: str, times: dict[str, list[float]]) -> dict[str, Any]:
    """Print a case's table; return it."""
    rows: dict[str, Any] = {}
    for name, seconds in times.items():
        rows[name] = {
            "median_ms": round(1e3 * quantile(seconds, 0.5), 3),
            "p95_ms": round(1e3 * quantile(seconds, 0.95), 3),
            "min_ms": round(1e3 * min(seconds), 3),
            "n": len(seconds),
        }
        print(f"{case:14s} {name:22s} {rows[name]}", flush=True)
    ours, *rivals = rows
    if rivals:
        best = min(rivals, key=lambda name: rows[name]["median_ms"])
        paired = [a / b for a, b in zip(times[ours], times[best], strict=True)]
        ratio = rows[ours]["median_ms"] / rows[best]["median_ms"]
        low, high = quantile(paired, 0.25), quantile(paired, 0.75)
        rows["ratio"] = {"rival": best, "median": round(ratio, 3), "quartiles": [low, high]}
        print(f"{case:14s} {ours} / {best}: {ratio:.3f} (quartiles {low:.3f} to {high:.3f})")
    return rows


def make_batches(case: str, texts: list[str], rng: np.random.Generator) -> Iterator[Batch]:
    """Padded ids and masks of a case, as `main` takes them."""
    if case == "ragged":
        lengths = sorted(2 + len(text.split()) * 6 // 5 for text in texts)
    else:
        batch, length = map(int, case.split("x"))
        lengths = [length] * batch
    for start in range(0, len(lengths), 32):
        part = np.array(lengths[start : start + 32])
        mask = (np.arange(part.max()) < part[:, None]).astype(np.int64)
        ids = np.where(mask == 1, rng.integers(5, 30000, mask.shape), 1)
        ids[:, 0] = 0
        ids[np.arange(len(part)), part - 1] = 2
        yield ids.astype(np.int64), mask


def clients(engine: Engine, texts: list[str], count: int, seconds: float) -> dict[str, float]:
    """Requests a second of `count` threads that each embed one text after the other."""
    latencies: list[float] = []
    stop = time.perf_counter() + seconds

    def client(first: int) -> None:
        index = first
        while time.perf_counter() < stop:
            start = time.perf_counter()
            engine.encode([texts[index % len(texts)]])
            latencies.append(time.perf_counter() - start)
            index += 1

    engine.encode(texts[:1])
    start = time.perf_counter()
    threads = [threading.Thread(target=client, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall = time.perf_counter() - start
    return {
        "requests_per_s": round(len(latencies) / wall, 1),
        "p50_ms": round(1e3 * quantile(latencies, 0.5), 1),
        "p99_ms": round(1e3 * quantile(latencies, 0.99), 1),
    }


def parse() -> argparse.Namespace:
    """Arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--engines", default="trine,onnxruntime,openvino")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cases", default="1x16,1x128,1x384")
    parser.add_argument("--texts", type=Path, default=CORPUS)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=5, help="of each concurrent trial")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--text-rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--cpu-time", action="store_true")
    return parser.parse_args()


def main() -> None:
    args = parse()
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = str(args.threads)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    engines = {name: ENGINES[name](args.folder, args.threads) for name in args.engines.split(",")}
    results: dict[str, Any] = {"threads": args.threads}
    clock = time.process_time if args.cpu_time else time.perf_counter
    rng = np.random.default_rng(7)
    texts = args.texts.read_text().splitlines()
    for case in filter(None, args.cases.split(",")):
        batches = list(make_batches(case, texts, rng))
        calls = {
            name: (lambda e=engine, b=batches: [e.run(*batch) for batch in b])
            for name, engine in engines.items()
        }
        times = interleave(calls, args.rounds, 2 if len(batches) == 1 else 1, clock)
        results[case] = report(case, times)
    if args.text_rounds:
        encodes = {name: (lambda e=engine: e.encode(texts)) for name, engine in engines.items()}
        for engine in engines.values():
            engine.encode(texts[::8])
        times = interleave(encodes, args.text_rounds, 1, clock)
        results["texts"] = report(f"{len(texts)} texts", times)
    if args.clients:
        short = [text for text in texts if 17 <= len(text.split()) <= 23]
        for trial in range(2):
            for name, engine in engines.items():
                row = clients(engine, short, args.clients, args.seconds)
                results.setdefault("clients", {}).setdefault(name, []).append(row)
                print(f"{args.clients} clients, trial {trial}: {name:22s} {row}", flush=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
