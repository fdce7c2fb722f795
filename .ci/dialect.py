# SPDX-License-Identifier: Apache-2.0
"""What Microsoft's compiler would meet in the core and does not know: GNU's dialect, POSIX headers.

That compiler runs on Windows alone, so this reads the sources as its preprocessor would.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFINED = {"_WIN32", "_MSC_VER", "_M_X64", "TRINE_MSVC", "TRINE_X86", "TRINE_SHARED"}
UNKNOWN = re.compile(
    r"__attribute__|__builtin_(?!bit_cast)|\b(__)?asm(__)?\b|__restrict__|\b(__)?typeof|__int128"
    r"|_Pragma\(\"GCC|#\s*pragma (GCC|clang)|(?<!::)\bssize_t\b|\boff_t\b|reinterpret_cast<__m\w+>"
    r"|#\s*include <(unistd|dlfcn|pthread|cpuid|sched|fcntl|xlocale|x86intrin|sys/\w+)\.h>"
    r"|\(__m(128|256|512)\w*\)|\bsetenv\("
)


def is_true(condition: str) -> bool:
    """Evaluate an #if as the compiler would; what is no question of `defined` counts as true."""
    names = re.sub(r"defined\s*\(?\s*(\w+)\s*\)?", lambda m: str(m[1] in DEFINED), condition)
    words = names.replace("&&", " and ").replace("||", " or ").replace("!=", "==")
    other = r"\b(?!(?:True|False|and|or|not)\b)\w+(\([^)]*\))?(\s*[<>=]=?\s*\w+)?"
    words = re.sub(other, "True", words.replace("!", " not "))
    return bool(eval(words))


def seen(text: str) -> Iterator[str]:
    """Yield the lines that Microsoft's compiler reads: joined ones whole, without comments."""
    taken = [(True, True)]  # whether lines are read, and whether a branch was chosen already
    for raw in text.replace("\\\n", " ").splitlines():
        line = raw.split("//")[0]
        directive = re.match(r"\s*#\s*(if|ifdef|ifndef|elif|else|endif)\b(.*)", line)
        if directive is None:
            if all(read for read, _ in taken):
                yield line
            continue
        kind, rest = directive[1], directive[2].strip()
        if kind == "endif":
            taken.pop()
        elif kind in {"if", "ifdef", "ifndef"}:
            asked = {"if": rest, "ifdef": f"defined({rest})", "ifndef": f"!defined({rest})"}[kind]
            chosen = is_true(asked)
            taken.append((chosen, chosen))
        else:
            done = taken.pop()[1]
            chosen = not done and (kind == "else" or is_true(rest))
            taken.append((chosen, done or chosen))


def problems(text: str) -> list[str]:
    """Return what is wrong with a source file, each with its line."""
    return [
        f"Microsoft's compiler does not know {found[0]}: {line.strip()}"
        for line in seen(text)
        if (found := UNKNOWN.search(line))
    ]
