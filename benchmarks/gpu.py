# SPDX-License-Identifier: Apache-2.0
"""Time whole models on a GPU, beside PyTorch where it and transformers are installed, interleaved.

    python benchmarks/gpu.py [--models mpnet,deberta,llama,generate]
        [--dtypes bfloat16,float32,int8,int4] [--cases 1x32,...] [--rounds 20] [--compile]
        [--json OUT]

Models have published shapes (MPNet-base, DeBERTa-v3-base, Llama-3.2-1B) and random weights, which
both engines read from one folder (gpu_models.py). A call goes from ids in host memory to one mean
vector a text in host memory; `generate` from prompts to new tokens, greedily. Every round runs each
engine in turn.

A line for each case and engine: the median with its quartiles, FLOP/s and bytes of weights a
second as trine's plan counts them, and the share of the limit: what the steps would take at the
peak, or reading their weights at the bandwidth, whichever is more for each. The limits are those of
data sheets (`--peak`, `--bandwidth` for others than the GPUs that are known here). float32 is held
to a third of TF32's peak: three products of TF32 make one of float32. int8 and int4, which multiply
bytes, are held to twice bfloat16's, and stand beside PyTorch in bfloat16, which has neither.

`--device cpu --layers 1 --cases 1x32` runs all of it on the processor, with the limits measured.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from gpu_models import write_model

import trine
from models import interleave, quantile
from trine import bench

try:
    import torch
    import transformers
except ImportError:  # trine alone
    torch = transformers = None

if TYPE_CHECKING:
    from collections.abc import Callable

# TFLOP/s of bfloat16 and of TF32 without sparsity, GB/s; by data sheets.
GPUS = {
    "H100 PCIe": (756, 378, 2000),
    "H100 NVL": (835, 417, 3900),
    "H100": (989, 494, 3350),
    "H200": (989, 494, 4800),
    "A100": (312, 156, 2039),
    "L40S": (362, 183, 864),
    "RTX 4090": (165, 83, 1008),
}
CASES = "1x32,1x128,1x510,32x128,64x510,256x128"
PROMPTS = "1x128+64,8x128+64,64x128+32,1x2048+64"  # prompts x tokens + new tokens


class PyTorch:
    """transformers' model, eager or compiled."""

    def __init__(self, folder: Path, name: str, options: argparse.Namespace, dtype: str) -> None:
        model = getattr(transformers, name).from_pretrained(folder, dtype=getattr(torch, dtype))
        self.model = model.to(options.device).eval()
        self.device = options.device
        self.call = (
            torch.compile(self.model, mode="reduce-overhead") if options.compile else self.model
        )

    def embed(self, ids: np.ndarray) -> np.ndarray:
        """Mean vectors."""
        with torch.inference_mode():
            hidden = self.call(torch.from_numpy(ids).to(self.device)).last_hidden_state
            return hidden.float().mean(1).cpu().numpy()

    def generate(self, ids: np.ndarray, new: int) -> np.ndarray:
        """New tokens of each prompt."""
        prompts = torch.from_numpy(ids).to(self.device)
        with torch.inference_mode():
            out = self.model.generate(
                prompts,
                attention_mask=torch.ones_like(prompts),
                do_sample=False,
                min_new_tokens=new,
                max_new_tokens=new,
                pad_token_id=0,
            )
        return out[:, ids.shape[1] :].cpu().numpy()


class Trine:
    """The same folder, and what its steps cost."""

    def __init__(self, folder: Path, options: argparse.Namespace, dtype: str) -> None:
        self.model: Any = trine.load(folder, device=options.device, dtype=dtype, cache=False)
        self.machine = bench._Machine(self.model, None)  # noqa: SLF001
        self.hardware = self.model.info().get("hardware", "cpu")
        peaks, bandwidth = limits(options, dtype, self.hardware)
        if peaks:
            self.machine.peaks = peaks
            self.machine.bandwidth = bandwidth
        else:
            self.machine.probe()

    def embed(self, ids: np.ndarray) -> np.ndarray:
        """Mean vectors."""
        found = self.model.forward(ids, outputs=["sentence_embedding"])
        return found["sentence_embedding"]

    def generate(self, ids: np.ndarray, new: int) -> np.ndarray:
        """New tokens of each prompt."""
        rows = [row.tolist() for row in ids]
        found = self.model.generate(rows, max_new_tokens=new, min_new_tokens=new)
        return np.array([answer.tokens for answer in found])

    def costs(self, ids: np.ndarray) -> tuple[float, float, float]:
        """FLOPs, bytes of weights, and the least seconds of a run."""
        parts = [bench.Tokens(np.ascontiguousarray(ids.ravel(), np.int32), offsets(ids), [])]
        weights = sum(self.machine._weight_bytes())  # noqa: SLF001
        return self.machine.flops(parts), weights, self.machine.limit(parts)


def offsets(ids: np.ndarray) -> np.ndarray:
    """Where each row begins."""
    return np.arange(len(ids) + 1, dtype=np.int32) * ids.shape[1]


def limits(options: argparse.Namespace, dtype: str, name: str) -> tuple[dict[str, float], float]:
    """GFLOP/s of steps of each dtype and GB/s; nothing where they are to be measured."""
    if options.device == "cpu":
        return {}, 0.0
    known = next((values for part, values in GPUS.items() if part in name), None)
    if known is None and not (options.peak and options.bandwidth):
        raise SystemExit(f"{name}: give --peak (TFLOP/s in bfloat16) and --bandwidth (GB/s)")
    bf16, tf32, bandwidth = known or (options.peak, options.peak / 2, options.bandwidth)
    bf16 = 1e3 * (options.peak or bf16)
    # Between bfloat16 steps a model has float32 ones that hold it up as little as those would.
    float32 = bf16 if dtype == "bfloat16" else 1e3 * tf32 / 3
    peaks = {"float32": float32, "bfloat16": bf16, "int8": 2 * bf16, "int4": 2 * bf16}
    return peaks, options.bandwidth or bandwidth


def show(
    case: str, times: dict[str, list[float]], work: tuple[float, float, float]
) -> dict[str, Any]:
    """Print a case; return it."""
    flops, weights, least = work
    rows: dict[str, Any] = {}
    for name, seconds in times.items():
        low, median, high = (quantile(seconds, q) for q in (0.25, 0.5, 0.75))
        rows[name] = {
            "ms": [1e3 * low, 1e3 * median, 1e3 * high],
            "tflops": flops / median / 1e12,
            "gb_per_s": weights / median / 1e9,
            "limit_share": least / median,
        }
        print(
            f"{case:28s} {name:8s} {1e3 * median:9.3f} ms ({1e3 * low:.3f} to {1e3 * high:.3f})  "
            f"{flops / median / 1e12:8.3f} TFLOP/s {weights / median / 1e9:8.1f} GB/s of weights  "
            f"{100 * least / median:5.1f} % of the limit"
        )
    if "torch" in times:
        paired = [a / b for a, b in zip(times["trine"], times["torch"], strict=True)]
        low, median, high = (quantile(paired, q) for q in (0.25, 0.5, 0.75))
        rows["ratio"] = [low, median, high]
        print(f"{case:28s} trine / torch: {median:.3f} ({low:.3f} to {high:.3f})")
    return rows


def compare(
    case: str,
    calls: dict[str, Callable[[], np.ndarray]],
    rounds: int,
    work: tuple[float, float, float],
    *,
    floats: bool,
) -> dict[str, Any]:
    """Time the engines, after a look at whether they agree."""
    ours = calls["trine"]()
    if "torch" not in calls:
        return show(case, interleave(calls, rounds, 2, time.perf_counter), work)
    theirs = calls["torch"]()
    if floats:
        lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
        agree = float(np.min((ours * theirs).sum(1) / lengths))
    else:
        agree = float((ours == theirs).mean())
    result = show(case, interleave(calls, rounds, 2, time.perf_counter), work)
    result["least cosine" if floats else "equal tokens"] = agree
    print(f"{case:28s} {'least cosine' if floats else 'equal tokens'} {agree:.5f}", flush=True)
    return result


def run_model(kind: str, options: argparse.Namespace, results: dict[str, Any]) -> None:
    """All cases of a model."""
    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        name = write_model(kind, options.layers, folder)
        causal = kind == "generate"
        for dtype in options.dtypes.split(","):
            ours = Trine(folder, options, dtype)
            results["hardware"] = ours.hardware
            engines: dict[str, Any] = {"trine": ours}
            if torch is not None:
                own = "float32" if dtype == "float32" else "bfloat16"
                engines["torch"] = PyTorch(folder, name, options, own)
            vocabulary = ours.model.config["vocab_size"]
            for case in (options.prompts if causal else options.cases).split(","):
                size, _, new = case.partition("+")
                rows, length = map(int, size.split("x"))
                ids = rng.integers(5, vocabulary, (rows, length))
                if causal:
                    # A run for the prompt and one for each token, whose cache costs nothing here.
                    steps = [ours.costs(ids), *[ours.costs(ids[:, :1])] * (int(new) - 1)]
                    work = tuple(map(sum, zip(*steps, strict=True)))
                    calls = {
                        n: (lambda e=e, i=ids, k=int(new): e.generate(i, k))
                        for n, e in engines.items()
                    }
                else:
                    work = ours.costs(ids)
                    calls = {n: (lambda e=e, i=ids: e.embed(i)) for n, e in engines.items()}
                title = f"{kind} {dtype} {case}"
                found = compare(title, calls, options.rounds, work, floats=not causal)
                results[title] = found
            ours.model.close()
            del engines, calls
            if torch is not None and options.device != "cpu":
                torch.cuda.empty_cache()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to try the program")
    parser.add_argument("--models", default="mpnet,deberta,llama,generate")
    parser.add_argument("--dtypes", default="bfloat16,float32,int8,int4")
    parser.add_argument("--cases", default=CASES, help="batch x tokens")
    parser.add_argument("--prompts", default=PROMPTS, help="batch x tokens + new tokens")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--layers", type=int, help="fewer layers, to try the program")
    parser.add_argument("--peak", type=float, help="TFLOP/s in bfloat16")
    parser.add_argument("--bandwidth", type=float, help="GB/s")
    parser.add_argument("--compile", action="store_true", help="torch.compile, reduce-overhead")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results: dict[str, Any] = {"device": options.device}
    if torch is not None:
        torch.backends.cuda.matmul.allow_tf32 = False  # float32 means float32
        results["torch"] = torch.__version__
    for kind in options.models.split(","):
        run_model(kind, options, results)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
