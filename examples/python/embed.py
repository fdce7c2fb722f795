# SPDX-License-Identifier: Apache-2.0
"""Semantic search over the lines of a file.

    python embed.py MODEL lines.txt "what to look for" [HOW_MANY]

The lines that mean the most alike come first, each with its similarity.
"""

from __future__ import annotations

import sys
from pathlib import Path

import trine


def main(source: str, path: str, query: str, count: str = "5") -> None:
    """Print the nearest lines."""
    lines = Path(path).read_text("utf-8").splitlines()
    with trine.load(source) as model:
        scores = model.similarity(model.encode([query]), model.encode(lines))[0]
    for index in (-scores).argsort(kind="stable")[: int(count)]:
        print(f"{scores[index]:.4f} {lines[index]}")


if __name__ == "__main__":
    main(*sys.argv[1:])
