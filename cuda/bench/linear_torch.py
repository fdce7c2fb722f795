# SPDX-License-Identifier: Apache-2.0
"""Times of torch's linear (cuBLAS) for the shapes of linear_bench.cu, in the same way."""

import statistics
import sys
from pathlib import Path

import torch

SHAPES = [(768, 768), (768, 2304), (768, 3072), (3072, 768), (576, 1536)]
SHAPES += [(2048, 2048), (2048, 8192), (8192, 2048), (2048, 128256)]
ROWS = [1, 4, 16, 64, 128, 256, 512, 1024, 4096, 16384]


def microseconds(x: torch.Tensor, weights: torch.Tensor, bias: torch.Tensor) -> float:
    """The median of graphs of many launches, each with other weights."""
    linear = torch.nn.functional.linear
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    linear(x, weights[0], bias)
    begin.record()
    linear(x, weights[0], bias)
    end.record()
    end.synchronize()
    launches = max(1, min(200, int(1.0 / max(begin.elapsed_time(end), 1e-3))))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(launches):
            linear(x, weights[i % len(weights)], bias)
    times = []
    for _ in range(5):
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1e3 / launches)
    return statistics.median(times)


def main() -> None:
    """Prints a line a shape, and writes them to the file that is named."""
    lines = []
    for dtype in (torch.bfloat16, torch.float32):
        for k, n in SHAPES:
            copies = max(1, min(200, (200 << 20) // (k * n * dtype.itemsize)))
            weights = torch.randn(copies, n, k, device="cuda", dtype=dtype) * 0.03
            bias = torch.randn(n, device="cuda", dtype=dtype)
            for m in ROWS:
                if (dtype == torch.float32 and m * n * k > 1e12) or (n > 100000 and m > 512):
                    continue
                x = torch.randn(m, k, device="cuda", dtype=dtype)
                us = microseconds(x, weights, bias)
                name = "BF16" if dtype == torch.bfloat16 else "F32"
                lines.append(f"{name},{m},{k},{n},cublas,{us:.3f}")
            del weights
            torch.cuda.empty_cache()
    text = "\n".join(lines) + "\n"
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(text, encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
