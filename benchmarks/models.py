# SPDX-License-Identifier: Apache-2.0
"""Time trine beside its rivals, interleaved in one process.

    python benchmarks/models.py FOLDER [--engines trine,onnxruntime,openvino] [--threads 2]
        [--lengths 16,128,384] [--texts FILE] [--clients 8] [--rounds 20] [--json OUT]

Each round runs every engine in turn: an untimed call (caches and thread pools settle), then two
timed ones. Ratios are of medians, trine's time over the best rival's; the spread of the ratio comes
from the rounds paired one by one.
"""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from engines import Engine

TEXTS = Path(__file__).resolve().parent.parent / "tests" / "golden" / "corpus256.txt"
PAUSE = 0.02  # seconds between engines, in which spinning threads stop


def quantile(values: list[float], q: float) -> float:
    """The q-quantile, by the nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def interleave(
    calls: dict[str, Callable[[], Any]], rounds: int, burst: int
) -> dict[str, list[float]]:
    """Seconds of `burst` timed calls per engine and round."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            if burst > 1:
                call()
            for _ in range(burst):
                start = time.perf_counter()
                call()
                times[name].append(time.perf_counter() - start)
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
    rivals = [name for name in rows if name != "trine"]
    if "trine" in rows and rivals:
        best = min(rivals, key=lambda name: rows[name]["median_ms"])
        paired = [a / b for a, b in zip(times["trine"], times[best], strict=True)]
        ratio = rows["trine"]["median_ms"] / rows[best]["median_ms"]
        low, high = quantile(paired, 0.25), quantile(paired, 0.75)
        rows["ratio"] = {"rival": best, "median": round(ratio, 3), "quartiles": [low, high]}
        print(f"{case:14s} trine / {best}: {ratio:.3f} (quartiles {low:.3f} to {high:.3f})")
    return rows


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
    parser.add_argument("--lengths", default="16,128,384")
    parser.add_argument("--texts", type=Path, default=TEXTS)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=5, help="of each concurrent trial")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--text-rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def main() -> None:
    args = parse()
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = str(args.threads)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import numpy as np
    from engines import ENGINES

    engines = {name: ENGINES[name](args.folder, args.threads) for name in args.engines.split(",")}
    results: dict[str, Any] = {"threads": args.threads}
    rng = np.random.default_rng(7)
    for length in map(int, filter(None, args.lengths.split(","))):
        ids = rng.integers(5, 30000, (1, length)).astype(np.int64)
        ids[:, 0], ids[:, -1] = 0, 2
        mask = np.ones_like(ids)
        calls = {
            name: (lambda e=engine, i=ids, m=mask: e.run(i, m)) for name, engine in engines.items()
        }
        times = interleave(calls, args.rounds, 2)
        results[f"1x{length}"] = report(f"1x{length}", times)
    texts = args.texts.read_text().splitlines()
    if args.text_rounds:
        encodes = {name: (lambda e=engine: e.encode(texts)) for name, engine in engines.items()}
        for engine in engines.values():
            engine.encode(texts[::8])
        times = interleave(encodes, args.text_rounds, 1)
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
