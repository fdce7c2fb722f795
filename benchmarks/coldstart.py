# SPDX-License-Identifier: Apache-2.0
"""Time fresh processes from their start to the first vector of one sentence, engines in turn.

python benchmarks/coldstart.py FOLDER [--engines trine,onnxruntime] [--runs 7]
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
import sys, trine
trine.load(sys.argv[1], dtype="float32").encode(sys.argv[2])
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--engines", default="import numpy,import trine,trine,onnxruntime")
    parser.add_argument("--runs", type=int, default=7)
    args = parser.parse_args()
    names = args.engines.split(",")
    exported = Path("build/rivals") / args.folder.name
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "false"}
    times: dict[str, list[float]] = {name: [] for name in names}
    for run in range(args.runs + 1):
        for name in names:
            start = time.perf_counter()
            command = [sys.executable, "-c", PROGRAMS[name], args.folder, SENTENCE, exported]
            subprocess.run(command, check=True, env=environment)
            if run:  # the first warms the page cache
                times[name].append(time.perf_counter() - start)
    for name, seconds in times.items():
        ordered = sorted(seconds)
        median = ordered[len(ordered) // 2]
        print(f"{name:14s} median {median:.3f} s, {ordered[0]:.3f} to {ordered[-1]:.3f}")


if __name__ == "__main__":
    main()
