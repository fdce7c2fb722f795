# SPDX-License-Identifier: Apache-2.0
"""``trine generate`` and ``trine chat``."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, TextIO

from trine import command_io
from trine.command import Command

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterator


def _add_sampling(parser: ArgumentParser, *, max_new_tokens: int) -> None:
    group = parser.add_argument_group("generation")
    group.add_argument("--max-new-tokens", type=int, default=max_new_tokens, metavar="N")
    group.add_argument("--min-new-tokens", type=int, default=0, metavar="N")
    group.add_argument(
        "--temperature", type=float, default=0.0, metavar="T", help="0: always the likeliest token"
    )
    group.add_argument("--top-k", type=int, default=0, metavar="K", help="0: all tokens")
    group.add_argument("--top-p", type=float, default=1.0, metavar="P")
    group.add_argument("--min-p", type=float, default=0.0, metavar="P")
    group.add_argument("--repetition-penalty", type=float, default=1.0, metavar="X")
    group.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="end before it; may be repeated"
    )
    group.add_argument("--seed", type=int, metavar="N", help="by default different each time")


_SAMPLING = (
    "max_new_tokens",
    "min_new_tokens",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "stop",
    "seed",
)


def _sampling(options: Namespace) -> dict[str, Any]:
    return {name: getattr(options, name) for name in _SAMPLING}


class Generate(Command):
    """``trine generate``."""

    name = "generate"
    summary = "go on from prompts"
    example = 'trine generate --model MODEL --max-new-tokens 20 "Once upon a time"'

    def add_options(self, parser: ArgumentParser) -> None:
        """Add the options of `Generator.generate`."""
        _add_sampling(parser, max_new_tokens=128)
        parser.add_argument(
            "--logprobs", type=int, metavar="N", help="also of N likeliest tokens in each place"
        )
        parser.add_argument(
            "--stream", action="store_true", help="print the text itself, as it comes"
        )

    def run(self, options: Namespace) -> int:
        """Generate and write: an object a prompt, or its text as it comes."""
        texts = command_io.read_texts(options)
        with command_io.load_model(options, "generate") as model:
            if options.stream:
                with command_io.open_text(options) as out:
                    for text in texts:
                        with model.stream(text, **_sampling(options)) as pieces:
                            _write_pieces(out, pieces)
                return 0
            results = model.generate(
                texts,
                batch_size=options.batch_size,
                show_progress=command_io.wants_progress(options, len(texts)),
                logprobs=options.logprobs,
                **_sampling(options),
            )
        pairs = zip(texts, results, strict=True)
        command_io.write_lines(
            options, [{"text": text, "generation": found} for text, found in pairs]
        )
        return 0


class Chat(Command):
    """``trine chat``."""

    name = "chat"
    summary = "hold a conversation: each text is a message, answers are streamed"
    example = 'trine chat --model MODEL --system "Answer briefly." "What is the capital of France?"'

    def add_options(self, parser: ArgumentParser) -> None:
        """Add the options of `Generator.stream`, and the system's message."""
        parser.add_argument("--system", metavar="TEXT", help="the system's message")
        form = parser.add_mutually_exclusive_group()
        form.add_argument(
            "--json", action="store_true", help="print JSON lines: what is done off a terminal"
        )
        form.add_argument(
            "--text", action="store_true", help="print the answers alone: what a terminal shows"
        )
        _add_sampling(parser, max_new_tokens=512)

    def run(self, options: Namespace) -> int:
        """Answer message after message."""
        messages: list[dict[str, str]] = []
        if options.system is not None:
            messages.append({"role": "system", "content": options.system})
        with (
            command_io.load_model(options, "generate") as model,
            command_io.open_text(options) as out,
        ):
            as_json = options.json or not (options.text or command_io.is_terminal(out))
            for text in _turns(options):
                messages.append({"role": "user", "content": text})
                with model.stream(messages, **_sampling(options)) as pieces:
                    if as_json:
                        found = _finish(pieces)
                        line = json.dumps({"text": text, "answer": found}, ensure_ascii=False)
                        out.write(line + "\n")
                        out.flush()
                    else:
                        _write_pieces(out, pieces)
                    messages.append({"role": "assistant", "content": pieces.result.text})
        return 0


def _turns(options: Namespace) -> Iterator[str]:
    """Yield the user's messages: arguments, or lines as they come in."""
    if options.texts:
        yield from options.texts
        return
    source = command_io.open_stdin()
    person = command_io.is_terminal(source)
    encoding = "utf-8-sig"  # a mark of the byte order may stand before the first line
    while True:
        if person and sys.stderr is not None:
            sys.stderr.write("> ")
            sys.stderr.flush()
        line = source.buffer.readline()
        if not line:
            return
        text = line.decode(encoding).rstrip("\r\n")
        encoding = "utf-8"
        if text:
            yield text


def _finish(pieces: Any) -> Any:
    """Return the whole result; the interrupt key ends the text, not the program."""
    try:
        return pieces.finish()
    except KeyboardInterrupt:
        pieces.close()
        return pieces.result


def _write_pieces(out: TextIO, pieces: Any) -> None:
    """Write text as it comes; the interrupt key ends the text, not the program."""
    try:
        for piece in pieces:
            out.write(piece)
            out.flush()
    except KeyboardInterrupt:
        pieces.close()
    out.write("\n")
    out.flush()
