# SPDX-License-Identifier: Apache-2.0
"""What the subcommands share: loading, reading texts, writing lines."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator


def model_names(options: argparse.Namespace) -> list[str]:
    """Return the models that the options of a command for several name."""
    from trine import InputError

    names = [*options.models, *options.named_models]
    if not names:
        raise InputError("which model? trine COMMAND --model MODEL")
    return names


def load_model(
    options: argparse.Namespace, task: str | None = None, name: str | None = None
) -> Any:
    """Load the model of a name, by default the one that the options name."""
    from trine import InputError, load

    name = name or options.model or getattr(options, "named_model", None)
    if not name:
        raise InputError("which model? trine COMMAND --model MODEL")
    return load(
        name,
        task=task,
        device=options.device,
        dtype=options.dtype,
        threads=options.threads,
        keep=options.keep,
        revision=options.revision,
        cache_dir=options.cache_dir,
        local_files_only=options.local_files_only,
        cache=not options.no_cache,
    )


def open_stdin() -> TextIO:
    """Return standard input; InputError if the program was started without one."""
    from trine import InputError

    if sys.stdin is None:
        raise InputError("no texts: standard input is closed; give them as arguments")
    return sys.stdin


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person reads or writes there; None is a stream that was closed from the start."""
    return stream is not None and stream.isatty()


def read_texts(options: argparse.Namespace) -> list[str]:
    """Return the texts given as arguments, or else the lines of standard input."""
    from trine import InputError

    if options.texts:
        return list(options.texts)
    if is_terminal(open_stdin()):
        raise InputError("no texts: give them as arguments, or lines on standard input")
    # A mark of the byte order may stand first, as some editors write it: no part of the text.
    lines = open_stdin().buffer.read().decode("utf-8-sig").split("\n")
    if lines[-1] == "":  # the end of the last line, not a line of its own
        del lines[-1]
    return [line.removesuffix("\r") for line in lines]


def wants_progress(options: argparse.Namespace, count: int) -> bool:
    """Whether to draw a progress bar: for several texts, and a person who watches."""
    return count > 1 and not options.no_progress and is_terminal(sys.stderr)


@contextmanager
def open_text(options: argparse.Namespace) -> Iterator[TextIO]:
    """Open what is written to: the file that the options name, or standard output."""
    if options.output:
        with open(options.output, "w", encoding="utf-8") as file:  # noqa: PTH123
            yield file
    else:
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(encoding="utf-8")
        yield sys.stdout


def write_lines(options: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    """Write one JSON object a line."""
    with open_text(options) as out:
        out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
