# SPDX-License-Identifier: Apache-2.0
"""Make tests/weights/tokenizer: small tokenizers with a text each, where fuzzing begins.

python make_tokenizer_seeds.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from text_families import tokenizer

PLACE = Path(__file__).parents[1] / "weights" / "tokenizer"
TEXTS = {
    "deberta-table": "\uff21 \u00e9 e\u0301\ufb01\r\n\u2026 [MASK]x  ",
    "llama3": "It's 12345\n\n  a\u00e9\U0001f600 <|eot|>I'LL ",
    "llama2": " a b\u5317 <own>x",
    "odd-bert": "The <ent1>  <ent2> \u5317\u4eac \u00c9t[MASK]",
    "odd-bytes": "a 12 \u0301b",
}


def smaller(described: dict[str, Any]) -> dict[str, Any]:
    """Keep what a fuzzer can read in a moment."""
    model = described["model"]
    keep = 60 if model["type"] == "Unigram" else 420
    if model["type"] == "Unigram":
        model["vocab"] = model["vocab"][:keep]
    else:
        model["vocab"] = {t: i for t, i in model["vocab"].items() if i < keep}
        model["merges"] = [m for m in model["merges"] if {*m, "".join(m)} <= model["vocab"].keys()]
    added = [t for t in described["added_tokens"] if t["id"] < len(model["vocab"])]
    extra = [t for t in described["added_tokens"] if t["id"] >= len(model["vocab"])]
    for index, token in enumerate(extra):
        token["id"] = len(model["vocab"]) + index
    described["added_tokens"] = added + extra
    return described


def main() -> None:
    PLACE.mkdir(exist_ok=True)
    for name, text in TEXTS.items():
        described = smaller(json.loads(tokenizer(name).to_str()))
        data = json.dumps(described, ensure_ascii=False, separators=(",", ":"))
        (PLACE / f"{name}.bin").write_bytes(data.encode() + b"\0" + text.encode())


if __name__ == "__main__":
    main()
