# SPDX-License-Identifier: Apache-2.0
"""Live parity with the reference libraries: a second suite, because it needs them installed.

    pip install torch transformers sentence-transformers sentencepiece protobuf gguf tiktoken
    pytest tests/parity

Where one of them is missing the run ends with an error: a skip would look like a pass.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
if str(GOLDEN) not in sys.path:  # tiny.py, stacks.py and compare.py serve both suites
    sys.path.insert(0, str(GOLDEN))

REQUIREMENTS = "torch transformers sentence-transformers sentencepiece protobuf gguf tiktoken"
NEEDED = (
    "torch",
    "transformers",
    "sentence_transformers",
    "sentencepiece",
    "google.protobuf",
    "gguf",
    "tiktoken",
)
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]
if MISSING:
    raise pytest.UsageError(
        f"tests/parity compares with the reference libraries; not installed: {', '.join(MISSING)}. "
        f"Run: pip install {REQUIREMENTS}"
    )

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedModel


def pytest_configure(config: pytest.Config) -> None:
    """Let the reference libraries warn; this project's own warnings are errors elsewhere."""
    config.addinivalue_line("filterwarnings", "ignore")


Made = tuple["PreTrainedModel", Path]


@pytest.fixture(autouse=True)
def _two_threads() -> None:
    import torch

    torch.set_num_threads(2)  # tiny matrices: more threads only wait for each other


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Made]:
    """`make(head, seed, tokenizer=False, **config)`: a random tiny model and its folder."""
    import shutil

    import tiny
    from stacks import BASE

    def make_model(head: str, seed: int, *, tokenizer: bool = False, **config: Any) -> Made:
        if tokenizer:
            config = {"vocab_size": 300, "max_position_embeddings": 130} | config
        model = tiny.make_model(head, tiny.make_config(head, **config), seed)
        folder = tiny.save(model, tmp_path / f"{head}-{seed}")
        if tokenizer:
            shutil.copy(BASE / "tokenizer.json", folder)
            tiny.write_tokenizer_config(folder, model_max_length=128)
        return model, folder

    return make_model
