# SPDX-License-Identifier: Apache-2.0
"""The C++ library inside the installed package: built against and run in a clean folder.

What is compared is what comes out of Python for the same file.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import trine

ROOT = Path(__file__).resolve().parent.parent
SEEDS = ROOT / "tests" / "weights" / "compiled"
EXAMPLES = ROOT / "tests" / "golden" / "examples"


def run(*command: object, cwd: Path | None = None, text: str = "") -> str:
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cpp")
    for path in (ROOT / "examples" / "cpp").iterdir():
        shutil.copy(path, folder)
    prefix = f"-DCMAKE_PREFIX_PATH={trine.cmake_prefix()}"
    run("cmake", "-B", "build", "-G", "Ninja", prefix, cwd=folder)
    run("cmake", "--build", "build", cwd=folder)
    return folder / "build"


def test_vectors_are_those_of_python(built: Path, tmp_path: Path) -> None:
    rows = [[0, 2058, 2007, 2788, 2], [0, 1037, 2], list(range(5, 70))]
    with trine.load("demo", dtype="bfloat16") as model:
        model.save(tmp_path / "m.trine")
        expected = model.encode(rows)
    lines = "".join(" ".join(map(str, row)) + "\n" for row in rows)
    printed = run(built / "embed", tmp_path / "m.trine", text=lines)
    got = np.array([line.split() for line in printed.splitlines()], np.float32)
    np.testing.assert_array_equal(got, expected)  # nine digits are all of a float


def test_texts_go_on_as_in_python(built: Path, tmp_path: Path) -> None:
    prompts = [[5, 6, 7], [9, 8, 7, 6]]
    with trine.load(EXAMPLES / "chat") as model:
        model.save(tmp_path / "m.trine")
        expected = model.generate(prompts, max_new_tokens=20, temperature=0.0)
    printed = run(built / "generate", tmp_path / "m.trine", 20, 0)
    tokens: list[list[int]] = [[], []]
    for line in printed.splitlines():
        sequence, token = map(int, line.split(":"))
        tokens[sequence].append(token)
    assert tokens == [list(g.tokens) for g in expected]


def test_errors_reach_the_user(built: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [built / "embed", tmp_path / "no.trine"],
        capture_output=True,
        text=True,
        input="",
        check=False,
    )
    assert done.returncode == 1
    assert "no.trine: cannot open" in done.stderr
    done = subprocess.run(
        [built / "embed", SEEDS / "mpnet.trine"],
        capture_output=True,
        text=True,
        input="1 2 999\n",
        check=False,
    )
    assert done.returncode == 1
    assert "id 999 at position 2 of sequence 0 is out of range" in done.stderr


C_PROGRAM = """
#include <stdio.h>
#include <trine_c.h>

int main(int count, char** arguments) {
  trine_model* model = NULL;
  trine_options options = {sizeof options, 1};
  trine_error* error = count == 2 ? trine_model_load(arguments[1], &options, &model) : NULL;
  if (error != NULL) {
    printf("%d %s\\n", trine_error_kind(error), trine_error_text(error));
    trine_error_free(error);
    return 1;
  }
  const int32_t ids[] = {1, 2, 3}, offsets[] = {0, 3};
  trine_batch batch = {sizeof batch, ids, offsets, 1, NULL, NULL};
  const char* names[] = {"logits"};
  float logits[6] = {0};
  float* results[] = {logits};
  error = trine_model_run(model, &batch, names, 1, results);
  for (int i = 0; i < 6; ++i) printf("%.9g ", logits[i]);
  trine_model_free(model);
  return error != NULL;
}
"""


def test_c_programs_use_it_through_pkg_config(tmp_path: Path) -> None:
    (tmp_path / "program.c").write_text(C_PROGRAM)
    prefix = Path(trine.cmake_prefix())
    environment = os.environ | {"PKG_CONFIG_PATH": str(prefix / "lib" / "pkgconfig")}
    command = ["pkg-config", "--cflags", "--libs", "trine"]
    if shutil.which("pkg-config"):
        flags = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True
        ).stdout.split()
    else:  # what the file says, without the program
        lines = (prefix / "lib" / "pkgconfig" / "trine.pc").read_text().splitlines()
        told = " ".join(x.partition(": ")[2] for x in lines if x.startswith(("Cflags", "Libs")))
        flags = told.replace("${pcfiledir}", str(prefix / "lib" / "pkgconfig")).split()
    warnings = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic"]
    rpath = f"-Wl,-rpath,{prefix / 'lib'}"
    run("cc", *warnings, "program.c", "-o", "program", *flags, rpath, cwd=tmp_path)
    printed = run(tmp_path / "program", SEEDS / "deberta.trine")
    with trine.load(SEEDS / "deberta.trine", threads=1) as model:
        expected = model.forward([[1, 2, 3]])["logits"].ravel()
    np.testing.assert_array_equal(np.array(printed.split(), np.float32), expected)


@pytest.mark.skipif(shutil.which("nm") is None, reason="lists symbols")
def test_nothing_but_the_c_interface_is_exported() -> None:
    library = next((Path(trine.cmake_prefix()) / "lib").glob("libtrine.*"))
    listed = run("nm", "-D", "--defined-only", library)
    names = [line.split()[-1].partition("@")[0] for line in listed.splitlines()]
    assert "trine_model_run" in names
    assert [name for name in names if not name.startswith("trine_")] == []
