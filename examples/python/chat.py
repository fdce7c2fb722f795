# SPDX-License-Identifier: Apache-2.0
"""A conversation in a terminal, a line at a time, with a language model.

pip install 'trine[chat]' && python chat.py MODEL [MAX_NEW_TOKENS [TEMPERATURE]]
"""

from __future__ import annotations

import sys

import trine


def main(source: str, tokens: str = "256", temperature: str = "0") -> None:
    """Answer each line of standard input."""
    messages: list[dict[str, str]] = []
    with trine.load(source) as model:
        print("> ", end="", flush=True)
        for line in sys.stdin:
            messages.append({"role": "user", "content": line.rstrip("\n")})
            stream = model.stream(
                messages, max_new_tokens=int(tokens), temperature=float(temperature)
            )
            for piece in stream:
                print(piece, end="", flush=True)
            messages.append({"role": "assistant", "content": stream.result.text})
            print("\n> ", end="", flush=True)
    print()


if __name__ == "__main__":
    main(*sys.argv[1:])
