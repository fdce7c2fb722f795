# SPDX-License-Identifier: Apache-2.0
"""The interpreters that wheels are built and tested with: those that are here, and made ones.

Of CPython 3.14, with and without a GIL, an interpreter is put together under build/wheels/: the
program and its extension modules are manylinux2014's, which freeze-core's wheels carry for x86-64
and aarch64 (the program is statically linked, and starts what it froze); library and headers are
Debian's. startup.py makes a `python` of it.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import sysconfig
import tempfile
from hashlib import sha256
from pathlib import Path
from pprint import pformat

import archive
import debian
from compile import HERE, pins, run

FOLDER = HERE.parent / "build" / "wheels" / "pythons"
MADE = ("3.14", "3.14t")
BACKEND = ("scikit-build-core", "pybind11", "pathspec", "packaging", "cmake", "ninja")
PROGRAM = "freeze-core==0.8.1"
# The release that has this version; where it went on to the next, these three lines have to follow.
RELEASE = "forky"
VERSION = "3.14.8-1"
PACKAGES = {
    "libpython3.14-minimal": "149d1ff143259f6a5a405522d40143595fdedbf6d8e01123ea798603f895c93d",
    "libpython3.14-stdlib": "abfa1b45e311461a4f8ee110d203efbc18808fada340af7036235b0d0c4cfd9a",
    "libpython3.14-dev": "86249e59881a141029423a718e766fe0d3fd076de3cecc1127156e540cb1c905",
}


def own_version() -> str:
    """Return the version of the Python that runs this, as targets.PYTHONS names them."""
    threaded = "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
    return platform.python_version().rpartition(".")[0] + threaded


def find_python(version: str) -> Path:
    """Return an interpreter of a version: this one, of pyenv, of the PATH, or one that is made."""
    if version == own_version():
        return Path(sys.executable)
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    exact = re.compile(re.escape(version.rstrip("t")) + r"\.\d+" + "t" * version.endswith("t"))
    found = [x for x in sorted(pyenv.glob("*/bin/python")) if exact.fullmatch(x.parts[-3])]
    if found:
        return found[-1]
    # A free-threaded 3.14 is installed as python3.14, too.
    asked = ("-c", "import sys; print(end=sys.abiflags)")
    if (path := shutil.which(f"python{version}")) and run(path, *asked) == version[4:]:
        return Path(path)
    if version in MADE and platform.machine() == "x86_64":
        return make_python(version, "x86_64")
    raise SystemExit(f"no Python {version} here; name others by --python")


def pip_options(version: str, machine: str) -> list[str]:
    """Return what makes pip choose binary wheels of another Python and machine."""
    options = ["--only-binary=:all:", "--implementation", "cp"]
    options += ["--python-version", version.rstrip("t")]
    if version.endswith("t"):
        options += ["--abi", f"cp{version.replace('.', '')}"]
    for glibc in ("manylinux_2_28", "manylinux_2_17", "manylinux2014"):
        options += ["--platform", f"{glibc}_{machine}"]
    return options


def install(version: str, machine: str, site: Path, *what: object) -> None:
    """Install packages for another Python or machine into a folder."""
    command = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    run(*command, "--target", site, *pip_options(version, machine), *what)


def make_python(version: str, machine: str) -> Path:
    """Put an interpreter together, once; returns its program.

    The folder's name says what it was made by, so that none changes under environments of it.
    """
    recipe = Path(__file__).read_bytes() + (HERE / "startup.py").read_bytes()
    base = FOLDER / f"{version}-{machine}-{sha256(recipe).hexdigest()[:8]}"
    if base.exists():
        return base / "bin" / "python"
    root = debian_root()
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER) as name:
        work = Path(name) / "base"
        short = f"python{version}"
        library = work / "lib" / short
        others = ("config-*", "build-details*", "EXTERNALLY-MANAGED")  # Debian's own build
        ignored = shutil.ignore_patterns("lib-dynload", "_sysconfig*", "sitecustomize.py", *others)
        shutil.copytree(root / "usr" / "lib" / "python3.14", library, ignore=ignored)
        shutil.copytree(root / "usr" / "include" / "python3.14", work / "include" / short)
        write_config(root, work / "include" / short / "pyconfig.h", version)
        write_settings(library, base, version, machine)
        shutil.copy(HERE / "startup.py", library / "__init__python.py")
        packed = Path(name) / "packed"
        install(version, machine, packed, "--no-deps", PROGRAM)
        shutil.move(packed / "freeze_core" / "lib", library / "lib-dynload")
        shutil.move(packed / "freeze_core.libs", work / "lib")  # where the modules look for them
        (program,) = (packed / "freeze_core" / "bases").glob("console-cpython-*")
        copy_program(program, work, Path("..") / "lib" / short)
        work.rename(base)
    return base / "bin" / "python"


def copy_program(program: Path, folder: Path, library: Path) -> Path:
    """Copy the program into an environment; it finds its library as ``lib`` beside it."""
    (folder / "bin").mkdir(parents=True)
    shutil.copy(program, folder / "bin" / "python")
    (folder / "bin" / "lib").symlink_to(library)
    return folder / "bin" / "python"


def debian_root() -> Path:
    """Return the folder with Debian's library and headers."""
    folder = FOLDER / f"{RELEASE}-{VERSION}"
    done = folder / "done"
    if not done.exists():
        try:
            debian.unpack(folder, RELEASE, VERSION, PACKAGES)
        except SystemExit as error:
            raise SystemExit(
                f"{error}\nwheels/pythons.py wants version {VERSION} of {RELEASE}: if that has "
                "another now, put it there with its hashes, or install CPython 3.14 (pyenv's, or "
                "on the PATH)"
            ) from None
        done.touch()
    return folder / "root"


def write_config(root: Path, path: Path, version: str) -> None:
    """Write pyconfig.h: Debian's of x86-64, in place of its choice by the compiler's target.

    Wheels of other targets are compiled with it, too, as they are with that of other interpreters
    of this machine; what it says of sizes is the same on all of them.
    """
    text = (root / "usr/include/x86_64-linux-gnu/python3.14/pyconfig.h").read_text()
    if version.endswith("t"):
        text, count = re.subn(r"/\* #undef Py_GIL_DISABLED \*/", "#define Py_GIL_DISABLED 1", text)
        if count != 1:
            raise SystemExit("pyconfig.h has no line for Py_GIL_DISABLED")
    path.write_text(text)


def write_settings(library: Path, base: Path, version: str, machine: str) -> None:
    """Write what `sysconfig` knows of the build, as far as anybody asks."""
    threaded = "t" if version.endswith("t") else ""
    triple = f"{machine}-linux-gnu"
    soabi = f"cpython-{version.replace('.', '')}-{triple}"
    include = str(base / "include" / f"python{version}")
    settings = {
        "ABIFLAGS": threaded,
        "ABI_THREAD": threaded,
        "CONFINCLUDEPY": include,
        "EXE": "",
        "EXT_SUFFIX": f".{soabi}.so",
        "INCLUDEPY": include,
        "LDVERSION": version,
        "LIBDIR": str(base / "lib"),
        "MULTIARCH": triple,
        "Py_DEBUG": 0,
        "Py_ENABLE_SHARED": 0,
        "Py_GIL_DISABLED": int(bool(threaded)),
        "SHLIB_SUFFIX": ".so",
        "SOABI": soabi,
        "VERSION": version.rstrip("t"),
        "exec_prefix": str(base),
        "prefix": str(base),
    }
    name = f"_sysconfigdata_{threaded}_linux_{triple}.py"
    (library / name).write_text(f"build_time_vars = {pformat(settings)}\n")


def make_environment(interpreter: Path, folder: Path) -> Path:
    """Make a new environment with pip; returns its interpreter."""
    if FOLDER not in interpreter.parents:
        run(interpreter, "-m", "venv", "--clear", folder)
        return folder / "bin" / "python"
    shutil.rmtree(folder, ignore_errors=True)
    library = (interpreter.parent / "lib").resolve()
    made = copy_program(interpreter, folder, library)
    # Debian's library has no ensurepip, which `venv` takes pip from.
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", made]
    run(*pip, "install", "-q", *pins("pip"))
    return made


def make_build_environment(interpreter: Path, folder: Path) -> Path:
    """Make an environment with the pinned build tools, once; returns its interpreter."""
    stamp = folder / "requirements.txt"
    wanted = pins(*BACKEND)
    content = "".join(
        f"{line}\n" for line in [str(interpreter), archive.sha256(interpreter), *wanted]
    )
    made = folder / "bin" / "python"
    if not stamp.exists() or stamp.read_text() != content:
        make_environment(interpreter, folder)
        run(made, "-m", "pip", "install", "-q", "--disable-pip-version-check", *wanted)
        stamp.write_text(content)
    return made
