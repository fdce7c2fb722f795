# SPDX-License-Identifier: Apache-2.0
"""The core's tokenizer beside the `tokenizers` library: one thread, in turn, processor time.

    PYTHONPATH=tests/golden python benchmarks/text.py [FAMILY ...]

Both are called from Python, text by text.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import TYPE_CHECKING, Any

from text_families import HERE, MAIN, tokenizer
from tokenizers import Tokenizer
from unicode_texts import texts

from trine import _core

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 15


def measure(work: Callable[[], Any]) -> float:
    start = time.thread_time()
    work()
    return time.thread_time() - start


def compare(name: str, kind: str, library: Callable[[], Any], core: Callable[[], Any]) -> None:
    for work in (library, core):  # caches of both are warm
        work()
    pairs = [(measure(library), measure(core)) for _ in range(ROUNDS)]
    low, middle, high = statistics.quantiles([a / b for a, b in pairs], n=4)
    best = [min(column) * 1e3 for column in zip(*pairs, strict=True)]
    print(
        f"{name:14} {kind:9} library {best[0]:8.2f} ms, core {best[1]:7.2f} ms at best; "
        f"{middle:.1f} times as fast ({low:.1f} to {high:.1f})"
    )


def main(names: list[str]) -> None:
    english = (HERE / "corpus256.txt").read_text("utf-8").splitlines()
    for name in names:
        text = tokenizer(name).to_str()
        library, core = Tokenizer.from_str(text), _core.Tokenizer(text)
        compare(
            name, "read", lambda t=text: Tokenizer.from_str(t), lambda t=text: _core.Tokenizer(t)
        )
        for kind, lines in (("English", english), ("any", texts(600, seed=3))):
            raw = [line.encode() for line in lines]
            compare(
                name,
                kind,
                lambda x=library, lines=lines: [x.encode(line).ids for line in lines],
                lambda x=core, raw=raw: [x.encode(line)[0] for line in raw],
            )


if __name__ == "__main__":
    main(sys.argv[1:] or list(MAIN))
