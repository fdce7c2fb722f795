# SPDX-License-Identifier: Apache-2.0
"""Which device a model runs on, and the plugin library that it comes in."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from trine import _core
from trine._core import DeviceError

# Folders with plugins, in front of the package's own.
SEARCH_VARIABLE = "TRINE_PLUGIN_PATH"
# In the order in which "auto" looks for them.
_PLUGINS = ("cuda", "metal")
# No hardware has run these yet, so "auto" leaves them to those who ask.
_UNPROVEN = ("metal",)


@dataclass(frozen=True)
class Chosen:
    """A device with its plugin's file, empty for the CPU, and why it was taken."""

    device: str
    plugin: str = ""
    reason: str = ""

    def dtype(self, wanted: str) -> str:
        """``wanted``, or what this device is fastest in when it is "auto"."""
        return _core.default_dtype(self.device, self.plugin) if wanted == "auto" else wanted


def find_plugin(name: str) -> Path | None:
    """Return the library of a device, if it is installed."""
    ending = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")
    folders = [Path(f) for f in os.environ.get(SEARCH_VARIABLE, "").split(os.pathsep) if f]
    for folder in [*folders, Path(__file__).resolve().parent]:
        if (path := folder / f"libtrine_{name}{ending}").is_file():
            return path
    return None


def choose(device: str) -> Chosen:
    """Find the device of this name: "auto", "cpu", "ref", "cuda", "cuda:1", "metal".

    ``"auto"`` is the first GPU of a plugin that is installed and works, else the CPU. It doesn't
    take Metal's, which has not run on hardware yet.

    Raises
    ------
    DeviceError
        There is no such device, its plugin is not installed, or it cannot be used: says why and
        what to do.
    """
    name, _, _ = device.partition(":")
    if device == "auto":
        return _automatic()
    if name not in _PLUGINS:
        return Chosen(device, reason="asked for")
    path = find_plugin(name)
    if path is None:
        raise DeviceError(
            f'device "{device}": this installation has no plugin libtrine_{name}; build trine '
            f"with TRINE_{name.upper()}=ON, or name the folder of the library in {SEARCH_VARIABLE}"
        )
    _core.plugin_devices(os.fspath(path))  # says why none can be used
    return Chosen(device, os.fspath(path), "asked for")


def _automatic() -> Chosen:
    reasons = []
    for name in _PLUGINS:
        path = find_plugin(name)
        if path is None:
            continue
        try:
            count = _core.plugin_devices(os.fspath(path))
        except DeviceError as error:
            reasons.append(f"{name}: {error}")
            continue
        if name in _UNPROVEN:
            reasons.append(f"{name}: not run on hardware yet; device={name!r} takes it")
        else:
            return Chosen(name, os.fspath(path), f"auto: the first of {count} {name} devices")
    return Chosen("cpu", reason="; ".join(["auto", *(reasons or ["no plugin of a GPU is there"])]))
