# SPDX-License-Identifier: Apache-2.0
"""What a dtype costs in quality, measured on real weights.

python benchmarks/quality.py MODEL [--texts FILE] [--sts stsbenchmark.tsv.gz] [--dtypes ...]
    [--llamacpp GGUF]

Each dtype beside the first one, float32. Of an embedder: the cosine of each text's vector to
float32's, and Spearman's correlation with the scores of the STS benchmark's test pairs (columns
split, .., score, sentence1, sentence2). Of a generator: greedy continuations of the texts, and the
perplexity of the texts joined, in windows on their own; also of GGUF files in llama.cpp. Of any
other model, and of an encoder without modules: each output of ``forward``. One JSON object a line.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any, Protocol

import numpy as np

import trine

DTYPES = ["float32", "bfloat16", "int8", "int4"]
TEXTS = Path(__file__).resolve().parent.parent / "tests" / "golden" / "corpus256.txt"
NEW_TOKENS = 48
GENERATED = 32  # of the texts
PROMPT_WORDS = 12
WINDOW = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--dtypes", nargs="+", default=DTYPES)
    parser.add_argument("--texts", type=Path, default=TEXTS, help="a text a line")
    parser.add_argument("--count", type=int, default=256, help="of texts; a generator takes 32")
    parser.add_argument("--sts", type=Path, help="the STS benchmark, tab-separated, gzip")
    parser.add_argument("--keep", action="append", help="as trine.load's, for int8 and int4")
    parser.add_argument("--llamacpp", action="append", default=[], metavar="GGUF")
    options = parser.parse_args()
    texts = options.texts.read_text(encoding="utf-8").splitlines()[: options.count]
    reference: dict[str, Any] = {}
    prompts: list[list[int]] = []
    windows: list[list[int]] = []
    for dtype in options.dtypes:
        keep = options.keep if dtype in ("int8", "int4") else None
        with trine.load(options.model, device="cpu", dtype=dtype, keep=keep) as model:
            found = measure(model, texts, options.sts, reference)
            row = {"dtype": dtype, "weight_MB": round(model.info()["weight_bytes"] / 1e6, 1)}
            if options.llamacpp and not windows:
                prompts, windows = prompts_of(model, texts), windows_of(model, texts)
        print(json.dumps(row | found), flush=True)
    for path in options.llamacpp:
        found = generator(LlamaCpp(path), prompts, windows, reference)
        print(json.dumps({"llama.cpp": Path(path).name} | found), flush=True)


def measure(
    model: Any, texts: list[str], sts: Path | None, reference: dict[str, Any]
) -> dict[str, Any]:
    """The figures of one dtype; the first call fills `reference`."""
    if isinstance(model, trine.Generator):
        own = prompts_of(model, texts), windows_of(model, texts)
        return generator(Own(model), *own, reference)
    if isinstance(model, trine.Embedder):
        found = {"cosine": cosines(model.encode(texts), reference, "vectors")}
        return found | ({"sts_spearman": spearman(model, sts)} if sts else {})
    tokens = model.tokenize(texts)
    kept = np.arange(tokens.lengths.max()) < tokens.lengths[:, None]
    ids = np.zeros(kept.shape, np.int32)
    ids[kept] = tokens.ids
    outputs = model.forward(ids, kept)
    return {
        name: cosines(values[kept[: len(values)]] if values.ndim == 3 else values, reference, name)
        for name, values in outputs.items()
    }


def cosines(vectors: np.ndarray, reference: dict[str, Any], name: str) -> dict[str, float]:
    """Mean and least cosine of rows to the reference's, and their distance as a share of it."""
    got = vectors.reshape(-1, vectors.shape[-1]).astype(np.float64)
    want = reference.setdefault(name, got)
    lengths = np.linalg.norm(got, axis=1) * np.linalg.norm(want, axis=1)
    cosine = (got * want).sum(axis=1) / lengths
    error = np.linalg.norm(got - want) / np.linalg.norm(want)
    return {
        "mean": round(float(cosine.mean()), 6),
        "min": round(float(cosine.min()), 6),
        "error": round(float(error), 6),
    }


def spearman(model: Any, path: Path) -> float:
    """Of the cosines of test pairs with people's scores, in hundredths."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = csv.DictReader(io.StringIO(file.read()), delimiter="\t", quoting=csv.QUOTE_NONE)
        pairs = [row for row in rows if row["split"] == "test"]
    sides = [model.encode([row[name] for row in pairs]) for name in ("sentence1", "sentence2")]
    scores = (sides[0] * sides[1]).sum(axis=1)
    wanted = np.array([float(row["score"]) for row in pairs])
    return round(100 * float(np.corrcoef(ranks(scores), ranks(wanted))[0, 1]), 3)


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 0; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts + 1) / 2)[inverse]


class Engine(Protocol):
    """What gives logits, and continues greedily."""

    def logits(self, ids: list[int]) -> np.ndarray:
        """[tokens, words] of one sequence."""

    def greedy(self, prompts: list[list[int]]) -> list[list[int]]:
        """Return NEW_TOKENS behind each prompt, or fewer where the text ends."""


class Own:
    def __init__(self, model: trine.Generator) -> None:
        self.model = model

    def logits(self, ids: list[int]) -> np.ndarray:
        return np.asarray(self.model.forward([ids], outputs=["logits"])["logits"][0])

    def greedy(self, prompts: list[list[int]]) -> list[list[int]]:
        return [list(g.tokens) for g in self.model.generate(prompts, max_new_tokens=NEW_TOKENS)]


class LlamaCpp:
    def __init__(self, path: str) -> None:
        from llama_cpp import Llama

        self.model = Llama(path, n_ctx=2 * WINDOW, logits_all=True, verbose=False)

    def logits(self, ids: list[int]) -> np.ndarray:
        self.model.reset()
        self.model.eval(ids)
        return np.array(self.model.scores[: len(ids)])

    def greedy(self, prompts: list[list[int]]) -> list[list[int]]:
        return [self._greedy(prompt) for prompt in prompts]

    def _greedy(self, ids: list[int]) -> list[int]:
        self.model.reset()
        out: list[int] = []
        step = list(ids)
        while len(out) < NEW_TOKENS and self.model.token_eos() not in step:
            self.model.eval(step)
            step = [int(np.argmax(self.model.scores[self.model.n_tokens - 1]))]
            out += step
        return out


def prompts_of(model: trine.Generator, texts: list[str]) -> list[list[int]]:
    starts = [" ".join(text.split()[:PROMPT_WORDS]) for text in texts[:GENERATED]]
    return [list(model.tokenize([start]).ids) for start in starts]


def windows_of(model: trine.Generator, texts: list[str]) -> list[list[int]]:
    ids = list(model.tokenize([" ".join(texts[:GENERATED])]).ids)
    return [ids[begin : begin + WINDOW] for begin in range(0, len(ids) - WINDOW, WINDOW)]


def generator(
    engine: Engine,
    prompts: list[list[int]],
    windows: list[list[int]],
    reference: dict[str, Any],
) -> dict[str, Any]:
    """Greedy tokens that agree up to the first difference, and the perplexity of the windows."""
    made = engine.greedy(prompts)
    want = reference.setdefault("made", made)
    shares = []
    for ours, theirs in zip(made, want, strict=True):
        same = next(
            (i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b),
            min(len(ours), len(theirs)),
        )
        shares.append(same / max(len(ours), len(theirs), 1))
    return {
        "same_continuations": f"{sum(s == 1 for s in shares)} of {len(shares)}",
        "tokens_until_they_differ": round(float(np.mean(shares)), 3),
        "perplexity": round(perplexity(engine, windows), 3),
    }


def perplexity(engine: Engine, windows: list[list[int]]) -> float:
    """Of the tokens of each window but its first."""
    losses = []
    for window in windows:
        logits = engine.logits(window)[:-1].astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        chosen = logits[np.arange(len(window) - 1), window[1:]]
        losses.append(np.log(np.exp(logits).sum(axis=1)) - chosen)
    return float(np.exp(np.mean(losses)))


if __name__ == "__main__":
    main()
