# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--device",
        choices=["emulated", "cuda"],
        default="emulated",
        help="what tests/cuda/test_device.py runs on: an emulated GPU (built for it) or a real one",
    )
