# SPDX-License-Identifier: Apache-2.0
"""What a decoder loses in a dtype: perplexity of a fixed text, and agreement of greedy text.

    python benchmarks/quality_llama.py MODEL[@DTYPE[@KEEP]] ... [--llamacpp GGUF] [--tokens 8192]
        [--window 256] [--prompts 50] [--new 64]

KEEP is a pattern of weights that stay in bfloat16. The first model is what the others are compared
with. The text is tests/golden/corpus256.txt, cut into windows of so many tokens, each read without
what comes before it; a prompt is the first six words of a line. `agree` counts prompts whose text
is the same to the end, `tokens` the mean length of the common beginning.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any, Protocol

import numpy as np

CORPUS = Path(__file__).parents[1] / "tests" / "golden" / "corpus256.txt"


class Engine(Protocol):
    """A model that gives logits and greedy tokens."""

    def logits(self, ids: list[int]) -> np.ndarray:
        """[tokens, words] of one sequence."""

    def greedy(self, ids: list[int], new: int) -> list[int]:
        """Return the tokens behind `ids`."""


class Trine:
    def __init__(self, name: str) -> None:
        import trine

        source, dtype, *keep = name.split("@") if "@" in name else (name, "auto")
        self.model: Any = trine.load(source, dtype=dtype, device="cpu", keep=keep or None)

    def logits(self, ids: list[int]) -> np.ndarray:
        return np.asarray(self.model.forward([ids], outputs=["logits"])["logits"][0])

    def greedy(self, ids: list[int], new: int) -> list[int]:
        found = self.model.generate(ids, max_new_tokens=new, min_new_tokens=new)
        return list(found.tokens)


class LlamaCpp:
    def __init__(self, path: str) -> None:
        from llama_cpp import Llama

        self.model = Llama(path, n_ctx=1024, logits_all=True, verbose=False)

    def logits(self, ids: list[int]) -> np.ndarray:
        self.model.reset()
        self.model.eval(ids)
        return np.array(self.model.scores[: len(ids)])

    def greedy(self, ids: list[int], new: int) -> list[int]:
        self.model.reset()
        out, step = [], list(ids)
        for _ in range(new):
            self.model.eval(step)
            step = [int(np.argmax(self.model.scores[self.model.n_tokens - 1]))]
            out += step
        return out


def perplexity(engine: Engine, ids: list[int], window: int) -> float:
    """Of the tokens of each window but its first."""
    loss, count = 0.0, 0
    for begin in range(0, len(ids) - window + 1, window):
        part = ids[begin : begin + window]
        logits = engine.logits(part)[:-1].astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        chosen = logits[np.arange(len(part) - 1), part[1:]]
        loss += float((np.log(np.exp(logits).sum(axis=1)) - chosen).sum())
        count += len(part) - 1
    return math.exp(loss / count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--llamacpp", action="append", default=[])
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--prompts", type=int, default=50)
    parser.add_argument("--new", type=int, default=64)
    args = parser.parse_args()
    lines = CORPUS.read_text("utf-8").splitlines()
    first = Trine(args.models[0])
    tokenizer = first.model.tokenizer
    ids = tokenizer.encode("\n".join(lines), add_special_tokens=False).ids[: args.tokens]
    prompts = [
        tokenizer.encode(" ".join(line.split()[:6]), add_special_tokens=False).ids
        for line in lines[: args.prompts]
    ]
    want: list[list[int]] = []
    names = [(name, Trine) for name in args.models] + [(name, LlamaCpp) for name in args.llamacpp]
    for name, kind in names:
        engine: Engine = first if name == args.models[0] else kind(name)
        texts = [engine.greedy(prompt, args.new) for prompt in prompts]
        want = want or texts
        same = [
            next((i for i, (a, b) in enumerate(zip(x, y, strict=True)) if a != b), args.new)
            for x, y in zip(texts, want, strict=True)
        ]
        print(
            f"{kind.__name__:9s} {name}: perplexity {perplexity(engine, ids, args.window):.3f}, "
            f"agree {sum(n == args.new for n in same)}/{len(same)}, tokens {np.mean(same):.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
