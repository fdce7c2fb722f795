# SPDX-License-Identifier: Apache-2.0
"""The command ``trine``."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Any

from trine.commands import COMMANDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trine.command import Command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    0: done. 1: `verify` found a difference. 2: wrong arguments, a broken model or input.
    """
    options = make_parser().parse_args(arguments)
    if sys.stdout is None:  # closed by who started the program
        return _fail("standard output is closed")
    try:
        from trine import Error
    except ImportError as error:
        return _fail(f"the compiled core cannot be loaded: {error}")
    try:
        code = options.command.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has had enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    except (Error, OSError, UnicodeError) as error:
        return _fail(str(error))
    return int(code)


def _fail(message: str) -> int:
    if sys.stderr is not None:
        sys.stderr.write(f"trine: {' '.join(message.split())}\n")
    return 2


def make_parser() -> argparse.ArgumentParser:
    """Return the parser with every subcommand."""
    parser = argparse.ArgumentParser(
        prog="trine",
        description="Low-latency transformer inference.",
        epilog='Try: trine embed --model demo "A sentence."',
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and leave")
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in COMMANDS:
        sub = subparsers.add_parser(
            command.name,
            help=command.summary,
            description=command.summary[0].upper() + command.summary[1:] + ".",
            epilog="example:\n  " + command.example,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if command.takes_model:
            _add_model(sub, command)
        command.add_options(sub)
        sub.set_defaults(command=command)
    return parser


class _Version(argparse.Action):
    """Import the package for its version only when that is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from trine import __version__

        sys.stdout.write(f"trine {__version__}\n")
        parser.exit()


def _add_model(parser: argparse.ArgumentParser, command: Command) -> None:
    where = "a folder, a .trine or .gguf file, a Hugging Face Hub id, or 'demo'"
    if command.takes_texts:
        parser.add_argument("--model", required=True, help=where)
        parser.add_argument(
            "texts", nargs="*", metavar="TEXT", help="by default the lines of standard input"
        )
        parser.add_argument("--output", metavar="FILE", help="write there, not to standard output")
        parser.add_argument("--batch-size", type=int, metavar="N", help="most texts of one run")
        parser.add_argument("--no-progress", action="store_true", help="draw no progress bar")
    elif command.many_models:
        parser.add_argument("models", nargs="*", metavar="MODEL", help=where)
        parser.add_argument(
            "--model",
            dest="named_models",
            action="append",
            default=[],
            metavar="MODEL",
            help="the same; may be given more than once",
        )
    else:
        parser.add_argument("model", nargs="?", metavar="MODEL", help=where)
        parser.add_argument("--model", dest="named_model", metavar="MODEL", help=where)
    group = parser.add_argument_group("loading")
    group.add_argument("--threads", type=int, metavar="N", help="by default one per CPU")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, metal or cuda:N")
    group.add_argument(
        "--dtype",
        default="auto",
        help="auto, float32, bfloat16, int8 or int4; float16 on metal",
    )
    group.add_argument(
        "--keep",
        action="append",
        metavar="PATTERN",
        help="weights that int8 and int4 leave in bfloat16, such as '*.output.dense.weight'; may "
        "be given more than once",
    )
    group.add_argument("--revision", help="branch, tag or commit of a Hub id")
    group.add_argument("--cache-dir", metavar="DIR", help="the Hub's cache")
    group.add_argument("--local-files-only", action="store_true", help="stay off the network")
    group.add_argument("--no-cache", action="store_true", help="load as if for the first time")
