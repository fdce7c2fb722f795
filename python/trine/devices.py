# SPDX-License-Identifier: Apache-2.0
"""Which device a model runs on, and the plugin library that it comes in."""

from __future__ import annotations

from dataclasses import dataclass

from trine import _core


@dataclass(frozen=True)
class Chosen:
    """A device with its plugin's file, empty for the CPU, and why it was taken."""

    device: str
    plugin: str = ""
    reason: str = ""

    def dtype(self, wanted: str) -> str:
        """``wanted``, or what this device is fastest in when it is "auto"."""
        return _core.default_dtype(self.device, self.plugin) if wanted == "auto" else wanted


def choose(device: str) -> Chosen:
    """Find the device of this name: "auto", "cpu", "ref", "cuda", "cuda:1", "metal".

    ``"auto"`` is the first GPU of a plugin that is installed and works, else the CPU. It doesn't
    take Metal's, which has not run on hardware yet. Plugins are looked for in the folders that
    ``TRINE_PLUGIN_PATH`` names, then in the package's own.

    Raises
    ------
    DeviceError
        There is no such device, its plugin is not installed, or it cannot be used: says why and
        what to do.
    """
    return Chosen(*_core.choose_device(device))
