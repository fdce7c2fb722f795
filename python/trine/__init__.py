# SPDX-License-Identifier: Apache-2.0
"""Low-latency transformer inference: encoders and small decoders from one small wheel.

>>> import trine
>>> with trine.load("demo") as model:
...     model.encode(["A first sentence.", "Another one."]).shape
(2, 768)

Everything is imported at first use, so that ``import trine`` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trine._core import DeviceError, Error, InputError, ModelError, __version__
    from trine.batching import Tokens
    from trine.loading import load
    from trine.tasks.base import Task
    from trine.tasks.chooser import Chooser
    from trine.tasks.classifier import Classifier
    from trine.tasks.detector import Detector
    from trine.tasks.embedder import Embedder
    from trine.tasks.filler import Filler
    from trine.tasks.generator import Generator
    from trine.tasks.reader import Reader
    from trine.tasks.tagger import Tagger

_HOME = {
    "DeviceError": "_core",
    "Error": "_core",
    "InputError": "_core",
    "ModelError": "_core",
    "Tokens": "batching",
    "load": "loading",
    "Task": "tasks.base",
    "Chooser": "tasks.chooser",
    "Classifier": "tasks.classifier",
    "Detector": "tasks.detector",
    "Embedder": "tasks.embedder",
    "Filler": "tasks.filler",
    "Generator": "tasks.generator",
    "Reader": "tasks.reader",
    "Tagger": "tasks.tagger",
    "__version__": "_core",
}


def cmake_prefix() -> str:
    """Return the folder for ``CMAKE_PREFIX_PATH``, where ``find_package(trine)`` finds the C++ API.

    The same library runs compiled files from C++ without Python: docs/cpp.md.

    Raises
    ------
    Error
        The C++ files are not there: wheels have them.

    Examples
    --------
    >>> import trine
    >>> trine.cmake_prefix().endswith("cpp")
    True
    """
    from pathlib import Path

    folder = Path(__file__).absolute().parent / "cpp"
    if not folder.is_dir():
        from trine._core import Error

        raise Error(f"the C++ files are not installed: there is no {folder}")
    return str(folder)


__all__ = [
    "Chooser",
    "Classifier",
    "Detector",
    "DeviceError",
    "Embedder",
    "Error",
    "Filler",
    "Generator",
    "InputError",
    "ModelError",
    "Reader",
    "Tagger",
    "Task",
    "Tokens",
    "__version__",
    "cmake_prefix",
    "load",
]


if not TYPE_CHECKING:  # a type checker knows the names above, and no others

    def __getattr__(name: str) -> object:
        """Import what a public name stands for, once."""
        if name not in _HOME:
            raise AttributeError(f"module 'trine' has no attribute {name!r}")
        from importlib import import_module

        value: object = getattr(import_module(f"trine.{_HOME[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
