# SPDX-License-Identifier: Apache-2.0
"""What freeze-core's interpreter runs in place of a frozen program: `python`, as it is called here.

That interpreter is initialised isolated and without `site`, and its frozen `__startup__` calls
`run` of a module that is named after the program. So this is installed as `__init__python` and does
what CPython's own main does with options, environment and paths: as much of it as pip, build
backends, pytest and the tests use.
"""

from __future__ import annotations

import os
import sys


def set_paths() -> None:
    """Make the folder of the program's folder the prefix, and that of the library the base."""
    library = os.path.realpath(sys.path[0])
    base = os.path.dirname(os.path.dirname(library))
    sys.prefix = sys.exec_prefix = os.path.dirname(os.path.dirname(sys.executable))
    sys.base_prefix = sys.base_exec_prefix = base
    sys.path[:] = [library, os.path.join(library, "lib-dynload")]
    tell_files(library)


def tell_files(library: str) -> None:
    """Give the library's frozen modules their files, as where CPython knows its library."""
    from _frozen_importlib import FrozenImporter

    sys._stdlib_dir = library
    for module in list(sys.modules.values()):
        spec = getattr(module, "__spec__", None)
        if getattr(spec, "loader", None) is FrozenImporter and not hasattr(module, "__file__"):
            state = spec.loader_state
            package = hasattr(module, "__path__")
            found, folder = FrozenImporter._resolve_filename(state.origname, spec.name, package)
            module.__file__ = state.filename = found
            if package:
                module.__path__[:] = [folder]


def set_signals() -> None:
    """Handle signals as a program does, which an embedded interpreter leaves alone."""
    import signal

    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def parse(words: list[str]) -> tuple[str, dict[str, list[str]]]:
    """Take the options from the words; returns -c, -m, or nothing, and the options' values."""
    options: dict[str, list[str]] = {}
    while words and words[0].startswith("-") and words[0] != "-":
        word = words.pop(0)
        if word == "--version":
            word = "-V"
        for end, letter in enumerate(word[1:], 2):
            value = ""
            if letter in "cmWX":  # the rest of the word is its value, or the next word
                value = word[end:] or words.pop(0)
            elif letter not in "bBEIOPqRsSuvVx":
                raise SystemExit(f"Unknown option: {word}")
            options.setdefault(letter, []).append(value)
            if letter in "cm":
                return letter, options
            if value:
                break
    return "", options


def variable(name: str, options: dict[str, list[str]]) -> str:
    """Return an environment variable, unless the options say that there is none."""
    return "" if "I" in options or "E" in options else os.environ.get(name, "")


def apply(options: dict[str, list[str]]) -> None:
    """Do what options and environment say of paths, warnings and output."""
    given = variable("PYTHONPATH", options).split(os.pathsep)
    sys.path[:0] = [os.path.abspath(path) for path in given if path]
    sys.dont_write_bytecode = "B" in options or bool(variable("PYTHONDONTWRITEBYTECODE", options))
    for option in options.get("X", []):
        name, separator, value = option.partition("=")
        sys._xoptions[name] = value if separator else True
    warned = [x for x in variable("PYTHONWARNINGS", options).split(",") if x]
    sys.warnoptions[:] = warned + options.get("W", [])
    if sys.warnoptions:
        import warnings

        warnings._processoptions(sys.warnoptions)
    if "u" in options or variable("PYTHONUNBUFFERED", options):
        import io

        for name in ("stdout", "stderr"):
            old = getattr(sys, name)
            raw = io.FileIO(old.fileno(), "wb", closefd=False)
            made = io.TextIOWrapper(raw, old.encoding, old.errors, write_through=True)
            setattr(sys, name, made)
            setattr(sys, f"__{name}__", made)
    if "S" not in options:
        import site

        # Debian's looks where Debian has packages, and knows of no free-threaded ones.
        short = f"python{sys.version_info.major}.{sys.version_info.minor}{sys.abiflags}"
        folder = os.path.join(sys.prefix, "lib", short, "site-packages")
        site.getsitepackages = lambda _prefixes=None: [folder]
        site.main()


def execute(kind: str, value: str, words: list[str], *, safe: bool) -> None:
    """Run code, a module, a script, or what comes from standard input."""
    import runpy

    main = sys.modules["__main__"]
    sys.argv[:] = [f"-{kind}" if kind else (words or [""])[0], *words[not kind :]]
    if kind == "m":
        sys.path[:0] = [] if safe else [os.getcwd()]
        runpy._run_module_as_main(value)
    elif kind or sys.argv[0] in ("", "-"):
        sys.path[:0] = [] if safe else [""]
        code, name = (value, "<string>") if kind else (sys.stdin.read(), "<stdin>")
        exec(compile(code, name, "exec"), vars(main))
    elif os.path.isdir(sys.argv[0]):
        runpy.run_path(sys.argv[0], run_name="__main__")
    else:
        sys.path[:0] = [] if safe else [os.path.dirname(os.path.realpath(sys.argv[0]))]
        main.__file__ = os.path.abspath(sys.argv[0])
        with open(sys.argv[0], "rb") as file:
            code = compile(file.read(), sys.argv[0], "exec")
        exec(code, vars(main))


def run(_name: str) -> None:
    """Be `python`."""
    set_paths()
    set_signals()
    words = sys.argv[1:]
    kind, options = parse(words)
    if "V" in options:
        print(f"Python {sys.version.split()[0]}")
        return
    apply(options)
    safe = "I" in options or "P" in options or bool(variable("PYTHONSAFEPATH", options))
    try:
        execute(kind, options[kind][0] if kind else "", words, safe=safe)
    except SystemExit:
        raise  # its code is the program's
    except BaseException as error:  # the program would end with another code
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_globals is globals():
            trace = trace.tb_next
        sys.excepthook(type(error), error.with_traceback(trace), trace)
        raise SystemExit(130 if isinstance(error, KeyboardInterrupt) else 1) from None
