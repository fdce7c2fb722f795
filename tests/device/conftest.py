# SPDX-License-Identifier: Apache-2.0
"""The devices that these tests run on: by default all of them, on emulated GPUs built here."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

EMULATED = ("cuda", "metal")


@pytest.fixture(scope="session")
def is_emulated(request: pytest.FixtureRequest) -> bool:
    """Whether the GPU is an emulated one."""
    return bool(request.config.getoption("--device") == "emulated")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    own = [str(mark.args[0]) for mark in metafunc.definition.iter_markers("parametrize")]
    if "device" in metafunc.fixturenames and not any("device" in names for names in own):
        asked = metafunc.config.getoption("--device")
        devices = EMULATED if asked == "emulated" else (asked,)
        metafunc.parametrize("device", devices, indirect=True)


@pytest.fixture
def device(request: pytest.FixtureRequest, is_emulated: bool) -> Iterator[str]:
    """A device's name, which means an emulated GPU unless ``--device`` asks for a real one."""
    name = str(request.param)
    if not is_emulated:
        yield name
        return
    import emulated

    before = os.environ.get("TRINE_PLUGIN_PATH")
    os.environ["TRINE_PLUGIN_PATH"] = str(emulated.plugin(name))
    yield name
    if before is None:
        del os.environ["TRINE_PLUGIN_PATH"]
    else:
        os.environ["TRINE_PLUGIN_PATH"] = before
