# SPDX-License-Identifier: Apache-2.0
"""The platforms that wheels are cross-compiled for, and what each asks of compiler and package."""

from __future__ import annotations

from dataclasses import dataclass

PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14", "3.14t")  # t: free-threaded


def wheel_tag(python: str) -> str:
    """Return a wheel's tags of Python and ABI for a version such as 3.11 or 3.14t."""
    xy = python.replace(".", "")
    return f"cp{xy.rstrip('t')}-cp{xy}"


@dataclass(frozen=True)
class Target:
    """One platform."""

    name: str
    zig: str  # the triple, with the oldest C library or system it has to run on
    system: str  # as CMake calls it
    processor: str
    host_platform: str  # what Python takes for its own platform: the wheel's tag
    extension: str  # suffix of an extension module, with {xy} for the version
    library: str  # the C++ library's file
    plat: str  # the platform tag of the finished wheel
    plugins: tuple[str, ...] = ()  # of devices, beside the extension module

    @property
    def is_linux(self) -> bool:
        """Whether the wheel goes through auditwheel."""
        return self.system == "Linux"

    def module(self, python: str) -> str:
        """Return the suffix of an extension module for a version such as 3.11 or 3.14t."""
        return self.extension.format(xy=python.replace(".", ""))


TARGETS = {
    target.name: target
    for target in (
        Target(
            name="linux-x86_64",
            zig="x86_64-linux-gnu.2.17",
            system="Linux",
            processor="x86_64",
            host_platform="linux-x86_64",
            extension=".cpython-{xy}-x86_64-linux-gnu.so",
            library="libtrine.so",
            plat="manylinux2014_x86_64.manylinux_2_17_x86_64",
        ),
        Target(
            name="linux-aarch64",
            zig="aarch64-linux-gnu.2.28",
            system="Linux",
            processor="aarch64",
            host_platform="linux-aarch64",
            extension=".cpython-{xy}-aarch64-linux-gnu.so",
            library="libtrine.so",
            plat="manylinux_2_28_aarch64",
        ),
        Target(
            name="macos-arm64",
            zig="aarch64-macos.13.0",
            system="Darwin",
            processor="arm64",
            host_platform="macosx-13.0-arm64",
            extension=".cpython-{xy}-darwin.so",
            library="libtrine.dylib",
            plat="macosx_13_0_arm64",
            plugins=("libtrine_metal.dylib",),
        ),
    )
}
