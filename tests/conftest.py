# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

# What folders give is under test; test_load_cache.py is about the cache.
os.environ.setdefault("TRINE_CACHE_SIZE", "0")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--device",
        choices=["emulated", "cuda", "metal"],
        default="emulated",
        help="what tests/device runs on: emulated GPUs (built for it) or a real one",
    )
    parser.addoption(
        "--texts",
        type=int,
        default=1200,
        help="how many texts of each family tests/python/test_text.py compares",
    )
    parser.addoption(
        "--exhaustive",
        action="store_true",
        help="run, too, what is marked so: .ci/run does in one of its stages",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--exhaustive"):
        return
    left_out = [item for item in items if item.get_closest_marker("exhaustive")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
