# SPDX-License-Identifier: Apache-2.0
"""Time fresh processes from their start to the first vector of one sentence, engines in turn.

python benchmarks/coldstart.py FOLDER [--engines trine,onnxruntime] [--runs 7]

Beside the time: that of the processor, which says more on a busy machine, and the memory that the
process has for itself at the end (Private_Dirty; pages of mapped files belong to all). "trine" maps
what the load cache keeps from the run before.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

SENTENCE = "The quick brown fox jumps over the lazy dog while the committee discusses the budget."
# What a user of each engine would write: nothing but what it needs is imported.
PROGRAMS = {
    "import trine": "import trine",
    "import numpy": "import numpy",
    "trine": """
import os, sys, trine
m = trine.load(sys.argv[1], dtype=os.environ["DTYPE"])
m.encode(sys.argv[2])
""",
    "trine uncached": """
import os, sys, trine
m = trine.load(sys.argv[1], dtype=os.environ["DTYPE"], cache=False)
m.encode(sys.argv[2])
""",
    "onnxruntime": """
import sys, numpy as np, onnxruntime as ort
from tokenizers import Tokenizer
t = Tokenizer.from_file(sys.argv[1] + "/tokenizer.json")
t.no_padding()
s = ort.InferenceSession(sys.argv[3] + "/model.onnx", providers=["CPUExecutionProvider"])
i = np.array([t.encode(sys.argv[2]).ids], np.int64)
s.run(None, {"input_ids": i, "attention_mask": np.ones_like(i)})
""",
    "openvino": """
import sys, numpy as np, openvino as ov
from tokenizers import Tokenizer
t = Tokenizer.from_file(sys.argv[1] + "/tokenizer.json")
t.no_padding()
c = ov.Core().compile_model(sys.argv[3] + "/model.xml", "CPU", {"PERFORMANCE_HINT": "LATENCY"})
i = np.array([t.encode(sys.argv[2]).ids], np.int64)
c([i, np.ones_like(i)])
""",
}
# Linux tells; elsewhere nothing is printed.
MEMORY = """
import contextlib as _c
with _c.suppress(OSError):
    for _l in open("/proc/self/smaps_rollup"):
        if _l.startswith("Private_Dirty"):
            print(_l.split()[1])
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--engines", default="import numpy,import trine,trine,onnxruntime")
    parser.add_argument("--dtype", default="float32", help="of trine")
    parser.add_argument("--runs", type=int, default=7)
    args = parser.parse_args()
    names = args.engines.split(",")
    exported = Path("build/rivals") / args.folder.name
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "false", "DTYPE": args.dtype}
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in names}
    for run in range(args.runs + 1):
        for name in names:
            program = PROGRAMS[name] + MEMORY
            command = [sys.executable, "-c", program, args.folder, SENTENCE, exported]
            before, start = os.times(), time.perf_counter()
            done = subprocess.run(
                command, check=True, env=environment, stdout=subprocess.PIPE, text=True
            )
            wall, after = time.perf_counter() - start, os.times()
            cpu = sum(after[2:4]) - sum(before[2:4])
            if run:  # the first warms the page cache, and fills trine's
                found[name].append((wall, cpu, float(done.stdout or "nan") / 1000))
    for name, rows in found.items():
        wall, cpu, memory = (sorted(values) for values in zip(*rows, strict=True))
        half = len(wall) // 2
        print(
            f"{name:16s} median {wall[half]:.3f} s, {wall[0]:.3f} to {wall[-1]:.3f}; processor "
            f"{cpu[half]:.3f} s; private {memory[half]:.0f} MB"
        )


if __name__ == "__main__":
    main()
