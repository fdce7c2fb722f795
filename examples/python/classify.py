# SPDX-License-Identifier: Apache-2.0
"""Labels of texts, one on each line of standard input.

    echo "Great film." | python classify.py MODEL

A tab between two texts makes a pair of them, for models that judge one beside the other.
"""

from __future__ import annotations

import sys

import trine


def main(source: str) -> None:
    """Print the best label of each line, its score, and the line."""
    lines = sys.stdin.read().splitlines()
    texts = [tuple(line.split("\t", 1)) if "\t" in line else line for line in lines]
    with trine.load(source) as model:
        for line, labels in zip(lines, model.predict(texts), strict=True):
            best = labels[0] if isinstance(labels, list) else labels
            print(f"{best['label']}\t{best['score']:.6f}\t{line}")


if __name__ == "__main__":
    main(*sys.argv[1:])
