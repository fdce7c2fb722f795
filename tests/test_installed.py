# SPDX-License-Identifier: Apache-2.0
"""The C++ library inside the installed package: built against and run in a clean folder.

What is compared is what comes out of Python for the same file.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
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


# Vectors of texts, and of the token ids of the same ones.
VECTORS = """
#include <trine.h>

#include <cstdio>
#include <iostream>
#include <string>
#include <vector>

int main(int, char** arguments) try {
  const auto model = trine::Model::load(arguments[1], {.threads = 2});
  std::vector<std::string> lines;
  for (std::string line; std::getline(std::cin, line);) lines.push_back(line);
  const trine::Batch batch = model.tokenize(lines);
  for (const trine::Outputs& out : {model.encode(lines), model.run(batch)}) {
    const trine::Output& vectors = out["sentence_embedding"];
    for (size_t row = 0; row < vectors.rows; ++row) {
      for (const float value : vectors[row]) std::printf("%.9g ", double{value});
      std::printf("\\n");
    }
  }
} catch (const trine::Error& error) {
  std::fprintf(stderr, "%s\\n", error.what());
  return 1;
}
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cpp")
    for path in (ROOT / "examples" / "cpp").iterdir():
        shutil.copy(path, folder)
    (folder / "vectors.cc").write_text(VECTORS)
    with (folder / "CMakeLists.txt").open("a") as file:
        file.write("add_executable(vectors vectors.cc)\n")
        file.write("target_link_libraries(vectors PRIVATE trine::trine)\n")
    prefix = f"-DCMAKE_PREFIX_PATH={trine.cmake_prefix()}"
    run("cmake", "-B", "build", "-G", "Ninja", prefix, cwd=folder)
    run("cmake", "--build", "build", cwd=folder)
    return folder / "build"


def example(name: str, *arguments: object, text: str = "") -> str:
    """Run an example in Python."""
    return run(sys.executable, ROOT / "examples" / "python" / f"{name}.py", *arguments, text=text)


LINES = (ROOT / "tests" / "golden" / "corpus256.txt").read_text("utf-8").splitlines()[:40]


def test_vectors_and_search_are_those_of_python(built: Path, tmp_path: Path) -> None:
    texts = [*LINES[:6], "na\u00efve \u5317\u4eac \U0001f600 e\u0301", "word " * 600]
    with trine.load("demo", dtype="bfloat16") as model:
        model.save(tmp_path / "m.trine")
        expected = model.encode(texts)
    printed = run(built / "vectors", tmp_path / "m.trine", text="\n".join(texts))
    got = np.array([line.split() for line in printed.splitlines()], np.float32)
    # Nine digits are all of a float.
    np.testing.assert_array_equal(got, np.concatenate([expected, expected]))
    (tmp_path / "lines.txt").write_text("\n".join(LINES), "utf-8")
    arguments = (tmp_path / "m.trine", tmp_path / "lines.txt", LINES[3].lower(), 7)
    found = [line.split(" ", 1) for line in run(built / "embed", *arguments).splitlines()]
    wanted = [line.split(" ", 1) for line in example("embed", *arguments).splitlines()]
    assert [line for _, line in found] == [line for _, line in wanted]
    assert found[0][1] == LINES[3]
    # Both print four digits of sums in another order.
    np.testing.assert_allclose(
        [float(x) for x, _ in found], [float(x) for x, _ in wanted], atol=2e-4
    )


def test_labels_are_those_of_python(built: Path, tmp_path: Path) -> None:
    for name, lines in (
        ("classify", "a good day\nbad rain\n\n"),
        ("entail", "the dog runs\ta dog\nit is red\tgreen\n"),
    ):
        path = tmp_path / f"{name}.trine"
        with trine.load(EXAMPLES / name) as model:
            model.save(path)
        found = run(built / "classify", path, text=lines).splitlines()
        wanted = example("classify", path, text=lines).splitlines()
        assert len(found) == len(wanted) == lines.count("\n")
        for a, b in zip(found, wanted, strict=True):
            label, score, text = a.split("\t", 2)
            assert [label, text] == [b.split("\t", 2)[0], b.split("\t", 2)[2]]
            assert float(score) == pytest.approx(float(b.split("\t")[1]), abs=2e-6)


def test_a_conversation_is_that_of_python(built: Path, tmp_path: Path) -> None:
    with trine.load(EXAMPLES / "chat") as model:
        model.save(tmp_path / "m.trine")
    lines = "What is the capital of Norway?\nWhat is the capital of France?\n"
    found = run(built / "chat", tmp_path / "m.trine", 20, text=lines)
    assert found == example("chat", tmp_path / "m.trine", 20, text=lines)
    assert "The capital of Norway is Oslo." in found


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
        [built / "vectors", tmp_path / "no.trine"],
        capture_output=True,
        text=True,
        input="",
        check=False,
    )
    assert done.returncode == 1
    assert "no.trine: cannot open" in done.stderr
    done = subprocess.run(
        [built / "vectors", SEEDS / "mpnet.trine"],
        capture_output=True,
        text=True,
        input="A text\n",
        check=False,
    )
    assert done.returncode == 1
    assert "compiled without a tokenizer" in done.stderr


C_PROGRAM = """
#include <stdio.h>
#include <trine_c.h>

int main(int count, char** arguments) {
  trine_model* model = NULL;
  trine_options options = {sizeof options, 1, "cpu"};
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


if sysconfig.get_config_var("Py_GIL_DISABLED"):

    def test_the_gil_stays_off(tmp_path: Path) -> None:
        """Neither this module nor numpy and tokenizers turn it on, with a warning, as they load."""
        code = "import sys, trine; trine.load(sys.argv[1]).encode('A text'); "
        code += "print(sys._is_gil_enabled())"
        with trine.load(ROOT / "tests" / "golden" / "sentence") as model:
            model.save(tmp_path / "m.trine")
        command = (sys.executable, "-W", "error", "-c", code, tmp_path / "m.trine")
        assert run(*command).strip() == "False"
