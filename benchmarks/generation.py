# SPDX-License-Identifier: Apache-2.0
"""Time text generation beside its rivals, interleaved in one process.

    python benchmarks/generation.py --folder HF [--gguf FILE] [--openvino-gguf FILE]
        [--dtype float32|bfloat16|int8|int4]
        [--engines trine,llamacpp,transformers,openvino] [--prompts 128,512] [--batches 1,8]
        [--tokens 32] [--rounds 8] [--threads 2] [--cpu-time] [--json OUT]

A prompt of random ids is run to its first token (prefill), and to `--tokens` more behind 32 ids
(decode; the time of the first is taken off). Every round has other ids, for some engines keep
prefixes. trine and transformers read the folder; trine-gguf, llama.cpp and OpenVINO GenAI the GGUF
file of the same weights. In int8 and int4 transformers and OpenVINO take bfloat16. All are greedy
and ignore end-of-text tokens. The limit is the bytes that a token reads, all weights once, at the
bandwidth that is measured in the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

PAUSE = 0.02  # seconds between engines, in which spinning threads stop
BEFORE_DECODE = 32
LEAST_ID, MOST_ID = 20, 40000


class Engine(Protocol):
    """One way to run a model."""

    def run(self, prompts: list[list[int]], new: int) -> list[int]:
        """Generate; returns the first prompt's tokens."""


class Trine:
    def __init__(self, args: argparse.Namespace) -> None:
        import trine

        self.model: Any = trine.load(
            args.folder, dtype=args.dtype, device="cpu", threads=args.threads
        )

    def run(self, prompts: list[list[int]], new: int) -> list[int]:
        found = self.model.generate(prompts, max_new_tokens=new, min_new_tokens=new)
        return list(found[0].tokens)


class TrineGguf(Trine):
    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__(argparse.Namespace(**(vars(args) | {"folder": args.gguf})))


class LlamaCpp:
    """llama.cpp through its C interface, as llama-cpp-python binds it."""

    def __init__(self, args: argparse.Namespace) -> None:
        import llama_cpp as c

        self.c = c
        self.log = c.llama_log_callback(lambda *_: None)
        c.llama_log_set(self.log, None)
        c.llama_backend_init()
        options = c.llama_model_default_params()
        self.model = c.llama_model_load_from_file(str(args.gguf).encode(), options)
        settings = c.llama_context_default_params()
        longest, batch = max(args.prompts), max(args.batches)
        settings.n_ctx = max(longest + args.tokens, batch * (BEFORE_DECODE + args.tokens)) + 64
        settings.n_batch = settings.n_ubatch = max(512, batch * BEFORE_DECODE)
        settings.n_seq_max = batch
        settings.kv_unified = True
        settings.n_threads = settings.n_threads_batch = args.threads
        self.context = c.llama_init_from_model(self.model, settings)
        self.batch = c.llama_batch_init(settings.n_batch, 0, 1)
        self.words = c.llama_vocab_n_tokens(c.llama_model_get_vocab(self.model))

    def step(self, rows: list[list[int]], past: int) -> list[int]:
        at, last = 0, []
        for sequence, row in enumerate(rows):
            for i, token in enumerate(row):
                self.batch.token[at], self.batch.pos[at] = token, past + i
                self.batch.n_seq_id[at], self.batch.seq_id[at][0] = 1, sequence
                self.batch.logits[at] = i + 1 == len(row)
                at += 1
            last.append(at - 1)
        self.batch.n_tokens = at
        if self.c.llama_decode(self.context, self.batch):
            raise RuntimeError("llama_decode failed")
        out = []
        for i in last:
            logits = self.c.llama_get_logits_ith(self.context, i)
            out.append(int(np.ctypeslib.as_array(logits, (self.words,)).argmax()))
        return out

    def run(self, prompts: list[list[int]], new: int) -> list[int]:
        self.c.llama_memory_clear(self.c.llama_get_memory(self.context), True)
        tokens = self.step(prompts, 0)
        first = [tokens[0]]
        for i in range(new - 1):
            tokens = self.step([[t] for t in tokens], len(prompts[0]) + i)
            first.append(tokens[0])
        return first


class Transformers:
    def __init__(self, args: argparse.Namespace) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(args.threads)
        self.torch = torch
        dtype = torch.float32 if args.dtype == "float32" else torch.bfloat16
        self.model = AutoModelForCausalLM.from_pretrained(args.folder, dtype=dtype).eval()

    def run(self, prompts: list[list[int]], new: int) -> list[int]:
        from transformers import DynamicCache

        with self.torch.inference_mode():
            cache = DynamicCache(config=self.model.config)
            tokens, first = self.torch.tensor(prompts), []
            for _ in range(new):
                out = self.model(tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
                tokens = out.logits[:, -1:].argmax(-1)
                first.append(int(tokens[0, 0]))
            return first


class OpenVino:
    """OpenVINO GenAI, which reads the GGUF file itself."""

    def __init__(self, args: argparse.Namespace) -> None:
        import openvino_genai

        self.genai = openvino_genai
        precision = "f32" if args.dtype == "float32" else "bf16"
        self.pipeline = openvino_genai.LLMPipeline(
            str(args.openvino_gguf or args.gguf),
            "CPU",
            INFERENCE_NUM_THREADS=args.threads,
            INFERENCE_PRECISION_HINT=precision,
        )

    def run(self, prompts: list[list[int]], new: int) -> list[int]:
        import openvino

        options = self.genai.GenerationConfig()
        options.max_new_tokens = options.min_new_tokens = new
        options.ignore_eos, options.do_sample = True, False
        ids = np.array(prompts, np.int64)
        inputs = self.genai.TokenizedInputs(
            openvino.Tensor(ids), openvino.Tensor(np.ones_like(ids))
        )
        return list(self.pipeline.generate(inputs, options).tokens[0])


ENGINES = {
    "trine": Trine,
    "trine-gguf": TrineGguf,
    "llamacpp": LlamaCpp,
    "transformers": Transformers,
    "openvino": OpenVino,
}


def quantile(values: Sequence[float], q: float) -> float:
    """The q-quantile, by the nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def measure(
    engines: dict[str, Engine], batch: int, length: int, new: int, args: argparse.Namespace
) -> dict[str, list[float]]:
    """Seconds of a prefill (new 1), or of `new` - 1 steps of decoding, by engine and round."""
    rng = np.random.default_rng(batch * 1000 + length)
    times: dict[str, list[float]] = {name: [] for name in engines}
    clock = time.process_time if args.cpu_time else time.perf_counter
    for turn in range(args.rounds + 1):
        ids = rng.integers(LEAST_ID, MOST_ID, (2, batch, length)).tolist()
        for name, engine in engines.items():
            start = clock()
            engine.run(ids[0], 1)
            middle = clock()
            seconds = middle - start
            if new > 1:
                engine.run(ids[1], new)
                seconds = clock() - middle - seconds
            if turn:  # the first round warms up
                times[name].append(seconds)
            time.sleep(PAUSE)
    return times


def report(case: str, times: dict[str, list[float]], tokens: int, limit: float) -> dict[str, Any]:
    """Print a case's table, in tokens a second; return it."""
    rows: dict[str, Any] = {}
    for name, seconds in times.items():
        rate = {q: round(tokens / quantile(seconds, q), 1) for q in (0.0, 0.5, 0.75)}
        rows[name] = {"median": rate[0.5], "best": rate[0.0], "slow_quarter": rate[0.75]}
        share = f"  {rate[0.5] / limit:.0%} of the limit" if limit else ""
        print(f"{case:18s} {name:14s} {rows[name]} tokens/s{share}", flush=True)
    ours, *rivals = rows
    for rival in rivals:
        paired = [b / a for a, b in zip(times[ours], times[rival], strict=True)]
        low, middle, high = (quantile(paired, q) for q in (0.25, 0.5, 0.75))
        rows[f"{ours} / {rival}"] = [round(x, 2) for x in (middle, low, high)]
        print(f"{case:18s} {ours} / {rival}: {middle:.2f} x ({low:.2f} to {high:.2f})", flush=True)
    return rows


def parse() -> argparse.Namespace:
    """Arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--gguf", type=Path)
    parser.add_argument("--openvino-gguf", type=Path, help="OpenVINO reads F16, but no F32 or BF16")
    parser.add_argument(
        "--dtype", default="float32", choices=["float32", "bfloat16", "int8", "int4"]
    )
    parser.add_argument("--engines", default="trine,llamacpp,transformers")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompts", default="128,512")
    parser.add_argument("--batches", default="1,8")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument(
        "--cpu-time", action="store_true", help="of the process; on a busy machine, with one thread"
    )
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    args.prompts = [int(x) for x in args.prompts.split(",") if x]
    args.batches = [int(x) for x in args.batches.split(",") if x]
    return args


def main() -> None:
    args = parse()
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = str(args.threads)
    engines: dict[str, Any] = {name: ENGINES[name](args) for name in args.engines.split(",")}
    ids = np.random.default_rng(1).integers(LEAST_ID, MOST_ID, (1, 24)).tolist()
    print({name: engine.run(ids, 6) for name, engine in engines.items()})  # do they agree?
    results: dict[str, Any] = {}
    for length in args.prompts:
        times = measure(engines, 1, length, 1, args)
        results[f"prefill {length}"] = report(f"prefill {length}", times, length, 0)
    from trine import _core

    bandwidth = 1e9 * _core.read_bandwidth(args.threads)
    trine = engines[next(name for name in engines if name.startswith("trine"))]
    limit = bandwidth / trine.model.info()["weight_bytes"]
    print(f"{bandwidth / 1e9:.1f} GB/s: at most {limit:.1f} steps/s")
    for batch in args.batches:
        times = measure(engines, batch, BEFORE_DECODE, args.tokens + 1, args)
        case = f"decode x{batch}"
        results[case] = report(case, times, args.tokens * batch, limit * batch)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
